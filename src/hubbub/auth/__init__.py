"""Proofs of identity that need a library: JWT, and the keys that issuers publish."""

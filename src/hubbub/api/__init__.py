"""The operator's side of the hub over HTTP: health, readiness, metrics, pages."""

"""What several engines need: their servers' URLs, their answers, and what is heard from a bus that forgets."""

"""What the hub tells the outside about itself: metrics and logs."""

"""What pages of implicit surfaces share."""

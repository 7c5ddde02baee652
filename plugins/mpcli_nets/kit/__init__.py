"""What the pages of networks share."""

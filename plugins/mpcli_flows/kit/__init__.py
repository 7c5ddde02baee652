"""What the pages of normalizing flows share: invertible maps, base distributions, the flow that joins them."""

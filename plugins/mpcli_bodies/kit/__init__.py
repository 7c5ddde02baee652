"""What the pages of bodies share: keypoints of people in their field's formats."""

"""What may keep the tutorial from running here, and what to do about it: python -m helpers.doctor."""

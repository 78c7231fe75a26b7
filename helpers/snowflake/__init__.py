"""Chapters 1, 5 and 6: connect, stage and list images, write predictions back, clean up."""

"""Chapter 4: how good the predictions are, where and why they fail, and what a reader is shown."""

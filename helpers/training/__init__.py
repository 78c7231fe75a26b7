"""Chapter 2: the data set, the training loop, how it is judged, and how long it takes."""

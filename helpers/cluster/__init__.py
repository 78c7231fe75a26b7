"""Chapter 3, who works: start a cluster, bring it the model, and what a worker does."""

"""Local training: precision, batches on the device, and the one trainer that all methods share."""

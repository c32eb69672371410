"""WebDataset shards as a data set: indexed once, then read in any order."""

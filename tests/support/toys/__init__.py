"""A toy of each kind that a user may add: what its one new file would hold; only a copy of the package gets them."""

"""Files that others load."""

from trainflat.export.sparse import save_sparse

__all__ = ["save_sparse"]

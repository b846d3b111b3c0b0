"""One abstract base class per kind of plugin; each docstring is the contract."""

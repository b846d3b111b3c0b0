"""Other projects' clients against a real server of the bundled model (marker ``clients``)."""

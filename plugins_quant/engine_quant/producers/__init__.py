"""Methods of ``engine quantize`` whose checkpoints the methods of this package read."""

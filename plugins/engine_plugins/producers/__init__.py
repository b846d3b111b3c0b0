"""Methods of ``engine quantize`` that write files of other programs' formats."""

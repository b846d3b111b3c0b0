"""One complete plugin per kind: what ``engine plugins new`` writes, what the guide shows, what the kit tests."""

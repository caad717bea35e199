"""The doors that other people's programs come in by: each speaks a protocol that they already know."""

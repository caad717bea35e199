"""The doors that other people's programs come in by: each speaks a language that those already know."""

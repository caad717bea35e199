"""What holds for every test of the client: its server logs no error."""

from tests.web.builders import clean_log

__all__ = ["clean_log"]

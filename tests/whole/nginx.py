"""Debian's nginx before some nodes, with the recipe of the README."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.whole.programs import Program, free_host, run_program
from tests.whole.readme import recipe, with_own

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
assert NGINX is not None or os.environ.get("CI") != "true", "no nginx: .ci/run installs it"

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")

SITE = "/etc/nginx/conf.d/candlesync.conf"
MAIN = "/etc/nginx/nginx.conf"
LOG = "/var/log/nginx/candlesync.log"
NODES = ("127.0.0.1:8000", "127.0.0.1:8001")
"""Where the recipe's two nodes are."""
LISTEN = "listen 80;"

# What somebody may have in nginx.conf, and the recipe has to get along with; and its own places for all that it writes.
_CONFIGURATION = """
{main}
worker_processes 2;
pid {folder}/pid;
error_log stderr warn;
http {{
    access_log off;
    gzip on;
    gzip_types application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site;
}}
"""


class Nginx:
    """One that runs."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.host = program.host
        self._log = folder / "log"

    def logged(self) -> str:
        """What stands in its access log."""
        return self._log.read_text()


@asynccontextmanager
async def run_nginx(nodes: Sequence[str], replacements: dict[str, str] | None = None) -> AsyncIterator[Nginx]:
    """nginx before two nodes, of which one answers already, for as long as the block lasts.

    ``replacements`` are made in the recipe, beside those of the addresses and the log.
    """
    assert NGINX is not None
    host = free_host()
    with _folder(host, nodes, replacements or {}) as folder:
        command = ["-p", str(folder), "-c", f"{folder}/conf", "-e", "stderr", "-g", "daemon off;"]
        async with run_program(command, host=host, program=(NGINX,)) as program:
            yield Nginx(program, folder)


@contextmanager
def _folder(host: str, nodes: Sequence[str], replacements: dict[str, str]) -> Iterator[Path]:
    """All that one nginx reads and writes."""
    with TemporaryDirectory(prefix="candlesync-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # started by root, its workers are somebody else
        own = dict(zip(NODES, nodes, strict=True)) | {LISTEN: f"listen {host};", LOG: f"{folder}/log"}
        (folder / "site").write_text(with_own(recipe(SITE), own | replacements))
        (folder / "conf").write_text(_CONFIGURATION.format(main=recipe(MAIN), folder=folder))
        yield folder

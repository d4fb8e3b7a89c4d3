"""The peers that are servers of their own: UmaDB and SierraDB, each on a free port with its data in a folder."""

import subprocess
from pathlib import Path

from tests.servers import Server


class UmaDB(Server):
    """With its defaults: each commit, of all the appends that wait, is synced to the disk twice."""

    name = "umadb"
    ready_line = b"is listening on"

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._program = programs / "umadb"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        """It makes its file when it starts."""

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [
            self._program,
            "--listen",
            f"127.0.0.1:{self.port}",
            "--db-path",
            self.folder / "uma.db",
        ]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)


class SierraDB(Server):
    """One node, with its defaults but for the cluster, which it is told to do without.

    An append is answered once it is synced, which is after 50 events, 4 KiB or 5 ms.
    """

    name = "sierradb"
    ready_line = b"ready to receive connections"

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._program = programs / "sierradb"
        self._config = self.folder / "sierra.toml"

    def _prepare(self) -> None:
        self._config.write_text(
            f'dir = "{self.folder}/data"\n'
            "[network]\n"
            "cluster_enabled = false\n"
            f'client_address = "127.0.0.1:{self.port}"\n'
        )

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        # Its cluster logs a line for each event otherwise.
        command: list[str | Path] = [
            self._program,
            "--config",
            self._config,
            "--log",
            "warn,sierradb=info,sierradb_cluster=warn",
        ]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

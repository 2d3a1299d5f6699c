"""What keeps a studio going: up, worker, doctor."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import threading
from typing import Annotated, Any

import typer

from feedback.db import Database
from feedback.errors import Conflict, InvalidInput, StudioError
from feedback.store.matchups import count_matchups
from feedback.store.runs import list_runs
from feedback.types import RunState
from studio.commands.session import AsJson, home_of, show_json, show_table, tell
from studio.doctor import examine
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
        str | None, typer.Option(metavar="MODEL", help="A policy's name, a model directory or a Hugging Face id.")
    ] = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Whether to keep a worker.")] = True,
) -> None:
    """Serve the page, the API and a worker until Ctrl-C. Runs that are at work go on without it."""
    refuse_open_address(host)
    home = home_of(context).create()
    with home.lock_studio() as lock, bind(host, port) as listener:
        url = f"http://{_in_url(host)}:{listener.getsockname()[1]}"
        lock.describe(url=url)
        db = home.open()
        try:
            seed_home(db)
            if policy is not None:
                serve_model(db, policy)
            fill_first_pool(db)
            serve(home, db, listener, url, keep_worker=worker)
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


def refuse_open_address(host: str) -> None:
    """Refuse to serve strangers: there are no accounts yet that could keep them out."""
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InvalidInput(f"{host!r} is not an address; the studio binds 127.0.0.1, ::1 or localhost.") from None
    if not is_loopback:
        raise InvalidInput(
            f"Refusing to bind {host}: whoever reaches it could do everything, since no admin account exists. "
            "Bind 127.0.0.1 and reach it from elsewhere by an SSH tunnel."
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
    pending = list_runs(db, states=[RunState.queued, RunState.starting, RunState.running])
    if count_matchups(db).open or any(run.method == "generate" for run in pending):
        return
    try:
        submit(db, "generate", {"limit": FIRST_POOL})
    except StudioError as error:
        tell(f"No pairs could be asked for: {error}")


def serve(home: Home, db: Database, listener: socket.socket, url: str, *, keep_worker: bool) -> None:
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
        _serve_page(home, db, listener, url)
    finally:
        stop.set()
        if keep_worker:
            thread.join()
            keeper.stop()


def _serve_page(home: Home, db: Database, listener: socket.socket, url: str) -> None:
    import uvicorn

    from studio.app import create_app

    config = uvicorn.Config(
        create_app(home, db), log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
    typer.echo(f"The studio is at {url} (home {home.path}); Ctrl-C ends it, runs go on.")
    uvicorn.Server(config).run(sockets=[listener])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ignore(*_: Any) -> None:
    return None

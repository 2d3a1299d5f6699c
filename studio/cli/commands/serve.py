"""What keeps a studio going: up, worker, doctor."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import typer

from feedback.database.engine import Database
from feedback.database.health import UNFINISHED, check_integrity
from feedback.errors import RESTORE_HINT, Conflict, DatabaseDamaged, InvalidInput, StudioError
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.policies import list_policies
from feedback.store.models.runs import list_runs
from feedback.store.people.users import count_admins
from feedback.types import RunState
from studio.cli.session.context import home_of
from studio.cli.session.launch_options import LaunchOptions, takes_options
from studio.cli.session.output import AsJson, show_json, show_table, tell
from studio.doctor import examine
from studio.security import open_access
from studio.web.guard.mount import Mount, is_loopback
from studio.web.server.memory import share_arenas
from studio.web.server.shutdown import Ending
from studio.worker_keeper import WorkerKeeper
from training.bundled import POLICY_IDS, SMOLLM2_BASE, STARTER_BASE
from training.checkpoints.registration import serve_model
from training.conversion.prepare import prepare_base
from training.home import Home
from training.operations.seed import seed_home
from training.runs.launch.registry import naming_options, options, target_asked_for, words_in_lock
from training.runs.launch.target import Target
from training.runs.lifecycle import reconcile
from training.runs.queue import submit
from training.smollm2.convert import ensure_base, is_available_offline
from training.smollm2.wheel import fetch_gguf
from training.worker import run_worker

NO_OPTIONS = LaunchOptions({})

# How many prompts the first visitor finds replies to; the page asks for more by itself.
FIRST_POOL = 50
SHUTDOWN_SECONDS = 3
# How long the start may take longer for a look at every page of the database: a gigabyte or two.
CHECK_SECONDS = 5.0


@takes_options(options())
def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to bind; 0 takes a free one.")] = 7860,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A policy's name, a model directory, a GGUF file, a Hugging Face id, http://HOST/v1#MODEL, smollm2 or "
            "starter.",
        ),
    ] = None,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Whether to keep a worker.")] = True,
    root_path: Annotated[
        str,
        typer.Option(metavar="PATH|URL", help="Where a reverse proxy shows it: /studio, or its whole https:// URL."),
    ] = "",
    token: Annotated[
        bool,
        typer.Option("--token/--no-token", help="Without users, open only by an address with a token in it."),
    ] = False,
    launch: LaunchOptions = NO_OPTIONS,
) -> None:
    """Serve the page, the API and a worker until Ctrl-C. Runs that are at work go on without it."""
    refuse_unknown_address(host)
    mount = Mount.parse(root_path) if root_path else Mount()
    target = target_asked_for(home_of(context), launch) if worker else None
    with Ending() as ending:
        home = home_of(context).create()
        with home.lock_studio() as lock:
            db = home.open()
            try:
                refuse_damaged(db)
                refuse_without_admin(db, host, mount)
                with (
                    bind(host, port) as listener,
                    open_access.token_file(home, token and open_access.is_open(db)) as opened,
                ):
                    url = f"http://{_in_url(host)}:{listener.getsockname()[1]}"
                    lock.describe(url=url)
                    choose_first_policy(db, policy)
                    fill_first_pool(db)
                    place = Place(host, mount, listener, url, opened)
                    serve(home, db, place, ending, keep_worker=worker, target=target)
            finally:
                db.dispose()


@takes_options(options())
def worker(
    context: typer.Context,
    standby: Annotated[
        bool, typer.Option("--standby/--no-standby", help="Keep a process ready that has loaded the libraries.")
    ] = True,
    launch: LaunchOptions = NO_OPTIONS,
) -> None:
    """Execute queued runs until Ctrl-C, here or on a Ray cluster. `studio up` starts one by itself."""
    home = home_of(context)
    run_worker(home, standby=standby, target=target_asked_for(home, launch))


@takes_options(naming_options())
def doctor(context: typer.Context, launch: LaunchOptions = NO_OPTIONS, as_json: AsJson = False) -> None:
    """Check what a studio needs; status 1, with the remedy, when something is wrong."""
    named = {option.variable: value for option in naming_options() if (value := launch[option.parameter]) is not None}
    findings = examine(home_of(context), {**os.environ, **named})
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


def refuse_damaged(db: Database) -> None:
    """Refuse to serve a damaged database; one too large to be checked at the start is left to `studio doctor`."""
    found = check_integrity(db, seconds=CHECK_SECONDS)
    if found == UNFINISHED:
        tell(f"The database was not checked to its end in {CHECK_SECONDS:g} s; `studio doctor` checks all of it.")
    elif found != "ok":
        raise DatabaseDamaged(found, RESTORE_HINT)


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


def choose_first_policy(db: Database, asked: str | None) -> None:
    """Promote the policy that was asked for; without one, a new home gets SmolLM2, else the starter with a notice.

    The first run that uses SmolLM2 converts it, so that the page need not wait.
    """
    is_new = not list_policies(db)
    if asked == SMOLLM2_BASE:
        if not is_new:
            ensure_base(asked, lambda _, text: tell(text))
        elif not is_available_offline():
            tell("Downloading SmolLM2-135M from PyPI (98 MB).")
            fetch_gguf()
    steps = seed_home(db, policy=asked if asked in POLICY_IDS else None)
    if asked is not None:
        serve_model(db, prepare_base(asked, report=lambda _, text: tell(text)))
    elif is_new and steps.champion == STARTER_BASE:
        tell(
            "The starter serves, a tiny model: SmolLM2-135M is not on this machine. `studio policies add smollm2` "
            "downloads it from PyPI (98 MB); a new home begins with it by `studio up --policy smollm2`."
        )


def fill_first_pool(db: Database) -> None:
    """Draw the first pairs when nobody would find one to judge, and none are being drawn.

    A run whose process was killed with the last server draws none, although the database still calls it running.
    """
    reconcile(db)
    pending = [RunState.queued, RunState.starting, RunState.running]
    if count_matchups(db).open or list_runs(db, states=pending, method="generate", limit=1):
        return
    try:
        submit(db, "generate", {"limit": FIRST_POOL})
    except StudioError as error:
        tell(f"No pairs could be asked for: {error}")


@dataclass(frozen=True)
class Place:
    """Where the studio is served; ``token`` opens it while there are no users, empty when everybody local may enter."""

    host: str
    mount: Mount
    listener: socket.socket
    url: str
    token: str = ""


def serve(home: Home, db: Database, place: Place, ending: Ending, *, keep_worker: bool, target: Target | None) -> None:
    """Serve until SIGINT or SIGTERM, keeping a worker meanwhile."""
    share_arenas()
    stop = threading.Event()
    keeper = WorkerKeeper(home, owner="up", standby=True, dies_with_me=False, target=target)
    thread = threading.Thread(target=keeper.keep, args=(stop, tell), name="worker-keeper", daemon=True)
    if keep_worker:
        tell_of_other_worker(home, target)
        thread.start()
    try:
        _serve_page(home, db, place, ending)
    finally:
        stop.set()
        if keep_worker:
            thread.join()
            keeper.stop()


def tell_of_other_worker(home: Home, target: Target | None) -> None:
    """A worker that lives is left alone, though it may execute runs elsewhere than was asked for just now."""
    holder = home.worker_holder()
    if holder is None or words_in_lock(holder) == (target.words if target else ""):
        return
    where = words_in_lock(holder) or "this machine"
    tell(f"A worker (pid {holder.get('pid')}) executes runs on {where} already; stop it, and its successor obeys.")


def _serve_page(home: Home, db: Database, place: Place, ending: Ending) -> None:
    import uvicorn

    from studio.web.app import create_app
    from studio.web.server.connections import BoundedProtocol

    config = uvicorn.Config(
        create_app(home, db, host=place.host, mount=place.mount, token=place.token),
        log_level="warning",
        access_log=False,
        http=BoundedProtocol,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    shown = f", through the proxy at {place.mount.url}" if place.mount.url else ""
    address = open_access.address(place.url, place.token)
    typer.echo(f"The studio is at {address}{shown} (home {home.path}); Ctrl-C ends it, runs go on.")
    if not is_loopback(place.host):
        tell("Passwords travel readable over plain HTTP: let a reverse proxy with TLS stand in front of it.")
    elif warning := open_access.who_may_enter(db, place.token):
        tell(warning)
    ending.serve(server, partial(server.run, sockets=[place.listener]))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

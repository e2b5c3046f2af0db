"""`serve`: the admin API and its page."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from embedmigrate.cli.failures import reported
from embedmigrate.cli.options import takes_settings
from embedmigrate.cli.scene import Scene, leave, open_scene
from embedmigrate.errors import ConfigError, Exit


@takes_settings("serve")
def serve(flags: Mapping[str, Any]) -> None:
    """Serve the admin API and its page; needs the extra `web` and a token.

    `embedmigrate serve --port 5001`

    `embedmigrate serve --host 0.0.0.0 --token-file /etc/embedmigrate/tokens --allowed-host db1`

    Jobs are processes of their own: they go on when the server ends, and it finds them again.

    **Exit status**: 0 ended by a signal · 2 bad option or setting, no token, address taken.
    """
    scene = open_scene(flags)
    with reported(scene.streams, json=scene.json, verbose=scene.loaded.settings.verbose > 0):
        try:
            from embedmigrate.web import serving  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise _missing(error) from None
        with ExitStack() as stack:
            say = _log(scene, stack)
            if words := serving.check_exposed(scene.loaded.settings):
                say(f"warning: {words}")
            serving.serve(
                scene.loaded,
                flags,
                say=say,
                started=lambda address: scene.streams.out.print(f"Serving on {address}"),
            )
        leave(Exit.OK)


def _log(scene: Scene, stack: ExitStack) -> Callable[[str], None]:
    """Lines to stderr, and to the log file where one is named."""
    path = scene.loaded.settings.log_file
    if path is None:
        return scene.streams.err.print
    try:
        file = stack.enter_context(path.open("a", encoding="utf-8", buffering=1))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}",
            code="log_file_unwritable",
            hint="name another with --log-file",
        ) from None

    def say(line: str) -> None:
        scene.streams.err.print(line)
        print(line, file=file)

    return say


def _missing(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"serve needs a package that is not installed: {error.name}",
        code="extra_missing",
        hint='pip install "embedmigrate[web]"',
    )

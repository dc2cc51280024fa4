"""How a function becomes a command: shared options, an event loop, and failures as exit codes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import attrs
import typer
from typer.core import TyperCommand, TyperGroup

from memory_core.cli.failures import ExitCode, exit_code_of, report
from memory_core.cli.session import Session
from memory_core.cli.streams import mute_stdout, show_log, show_traceback

__all__ = ["Command", "Group", "Shared", "command", "run_async", "shared_parameters"]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Shared:
    """Options that every command has, before its name or after it."""

    Url = Annotated[
        str | None,
        typer.Option(
            "--url",
            help="The store, such as lmdb:./memory. Else MEMORY_URL, else memory.toml, "
            "else a file in the user's data directory.",
        ),
    ]
    Namespace = Annotated[
        str | None,
        typer.Option("--namespace", help="Else MEMORY_NAMESPACE."),
    ]
    Config = Annotated[
        Path | None,
        typer.Option("--config", help="Settings file. Else MEMORY_CONFIG."),
    ]
    Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
    Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


class Command(TyperCommand):
    """A command that loads pydantic only for a value that it converts."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, ``--help`` included."""
        return _without_conversions(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands that loads pydantic only for a value that it converts."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, ``--help`` included."""
        return _without_conversions(super().get_params(ctx))


def _without_conversions(parameters: list[Any]) -> list[Any]:
    """Let parameters accept a value that needs no conversion without loading pydantic.

    Typer converts every value by pydantic, even one that was not given, and loading pydantic takes longer
    than a short command.
    """
    for parameter in parameters:
        if hasattr(parameter, "type_descriptor") and "process_value" not in vars(parameter):
            parameter.process_value = _processing(parameter, parameter.process_value)
    return parameters


def _processing(parameter: Any, convert: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    several = parameter.multiple or parameter.nargs == -1

    def process_value(ctx: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            value = () if several else None
        elif type(value) is not parameter.type_descriptor.annotation:
            try:
                return convert(ctx, value)
            except typer.BadParameter as error:
                error.message = _plain_reason(error.message)
                raise
        return value if parameter.callback is None else parameter.callback(ctx, parameter, value)

    return process_value


def _plain_reason(message: str) -> str:
    """Why pydantic rejects a value, phrased like the other messages."""
    reason = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return reason.partition(", unable to parse")[0]


def shared_parameters() -> list[inspect.Parameter]:
    """The shared options as parameters of a function."""
    return [
        inspect.Parameter("url", _KEYWORD, default=None, annotation=Shared.Url),
        inspect.Parameter("namespace", _KEYWORD, default=None, annotation=Shared.Namespace),
        inspect.Parameter("config", _KEYWORD, default=None, annotation=Shared.Config),
        inspect.Parameter("as_json", _KEYWORD, default=False, annotation=Shared.Json),
        inspect.Parameter("debug", _KEYWORD, default=False, annotation=Shared.Debug),
    ]


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Add a function as a command: its first parameter is the ``Session``, the others are options and
    arguments as typer takes them. A parameter that is an attrs class stands for one option per field.
    The function may be a coroutine function.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        app.command(name, cls=Command, **options)(_bound(function))
        return function

    return decorate


def run_async(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; Ctrl-C and SIGTERM cancel it, so that it can clean up.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        asyncio.CancelledError: on SIGTERM.
    """
    import asyncio

    from memory_core.cli.stopping import stoppable

    async def cancellable() -> Any:
        with stoppable(asyncio.current_task()):
            return await work

    return asyncio.run(cancellable())


def _bound(function: Callable[..., Any]) -> Callable[..., None]:
    hints = get_type_hints(function, include_extras=True)
    own: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        hint = hints[parameter.name]
        if isinstance(hint, type) and attrs.has(hint):
            groups[parameter.name] = hint
            own += _fields(hint)
        else:
            own.append(parameter.replace(kind=_KEYWORD, annotation=hint))
    shared = shared_parameters()
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )

    def invoke(context: typer.Context, **values: Any) -> None:
        given = {parameter.name: values.pop(parameter.name) for parameter in shared}
        session = context.ensure_object(Session).with_options(**given)
        for name, cls in groups.items():
            values[name] = cls(**{item.name: values.pop(item.name) for item in attrs.fields(cls)})
        _guarded(function, session, values)

    parameters = [context, *own, *shared]
    invoke.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]  # what typer reads
    invoke.__annotations__ = {item.name: item.annotation for item in parameters}
    invoke.__doc__ = function.__doc__
    return invoke


def _fields(cls: type) -> list[inspect.Parameter]:
    """The fields of an attrs class as parameters."""
    hints = get_type_hints(cls, include_extras=True)
    return [
        inspect.Parameter(item.name, _KEYWORD, default=item.default, annotation=hints[item.name])
        for item in attrs.fields(cls)
    ]


def _guarded(function: Callable[..., Any], session: Session, values: dict[str, Any]) -> None:
    import asyncio

    show_log(debug=session.debug)
    try:
        result = function(session, **values)
        if inspect.iscoroutine(result):
            run_async(result)
        sys.stdout.flush()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except asyncio.CancelledError as error:
        _fail(error, ExitCode.TERMINATED, debug=session.debug)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # failures become exit codes here
        _fail(error, exit_code_of(error), debug=session.debug)


def _fail(error: BaseException, code: ExitCode, *, debug: bool) -> None:
    if debug:
        show_traceback(error)
    if code is ExitCode.PIPE_CLOSED:
        mute_stdout()
    else:
        report(error, code)
    raise typer.Exit(code) from error

"""All commands, in the order of the help text: those for users first."""

from __future__ import annotations

from .app import app
from .completion import completion
from .evaluate import compare, evaluate
from .listen import listen
from .models import export_onnx, models
from .separate import separate
from .train import average, export, publish, train

COMMANDS = (
    separate,
    listen,
    app,
    models,
    train,
    average,
    evaluate,
    compare,
    export,
    export_onnx,
    publish,
    completion,
)

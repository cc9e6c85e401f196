"""What real Spleeter does, saved for comparison. Runs where Spleeter and TensorFlow are.

Called by `spleeter_parity.py`, which makes that environment:

    python spleeter_reference.py make CONFIG.json MODEL_FOLDER SEED
    python spleeter_reference.py run CONFIG.json AUDIO.npy OUT.npz
    python spleeter_reference.py net CONFIG.json MAGNITUDE.npy OUT.npz

``CONFIG`` is a configuration of Spleeter whose ``model_dir`` is absolute.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from spleeter.model import EstimatorSpecBuilder, InputProviderFactory
from spleeter.separator import Separator

v1 = tf.compat.v1


def values(name, shape, random):
    """Weights that keep signals alive and are nowhere at their initial value."""
    kind = name.split("/")[-1]
    if kind == "kernel":
        # Each output of a transposed convolution sees a quarter of the taps.
        transposed = name.startswith("conv2d_transpose")
        inputs = shape[0] * shape[1] * (shape[3] / 4 if transposed else shape[2])
        scale = 0.2 if shape[2] == 2 and not transposed else 1.0  # magnitudes are large
        return random.normal(0, scale * np.sqrt(2 / inputs), shape)
    if kind in ("gamma", "moving_variance"):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(0, 0.3, shape)


def build(params):
    """Spleeter's own prediction graph, with the step that its estimator counts."""
    provider = InputProviderFactory.get(params)
    features = provider.get_input_dict_placeholders()
    builder = EstimatorSpecBuilder(features, params)
    v1.train.get_or_create_global_step()
    return features, builder


def make(params, folder, seed):
    """Save a checkpoint with random weights as Spleeter's estimator would."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with tf.Graph().as_default(), v1.Session() as session:
        _, builder = build(params)
        _ = builder.model_outputs
        # Optimisers leave such variables in checkpoints of runs; nobody may trip over them.
        v1.get_variable("beta1_power", shape=())
        v1.get_variable("conv2d/kernel/Adam", shape=(2, 2))
        variables = v1.global_variables()
        session.run(v1.global_variables_initializer())
        for variable in variables:
            if variable.dtype.base_dtype == tf.float32:
                variable.load(values(variable.op.name, variable.shape.as_list(), random), session)
        v1.train.Saver(variables).save(
            session, str(folder / "model"), write_meta_graph=not params.get("narrow")
        )
    (folder / ".probe").write_text("OK")


def run(config, params, audio, out):
    """Network outputs, masks and stems of ``(samples, channels)``."""
    stems = Separator(str(config), multiprocess=False).separate(audio)
    arrays = {f"stem/{name}": stems[name] for name in params["instrument_list"]}
    with tf.Graph().as_default(), v1.Session() as session:
        features, builder = build(params)
        fetched = {}
        for name in params["instrument_list"]:
            fetched[f"net/{name}"] = builder.model_outputs[f"{name}_spectrogram"]
            fetched[f"mask/{name}"] = builder.masks[name]
        v1.train.Saver().restore(session, tf.train.latest_checkpoint(params["model_dir"]))
        arrays |= session.run(fetched, {features["waveform"]: audio})
    np.savez(out, **arrays)


def net(params, magnitude, out):
    """Network outputs of magnitudes ``(batch, frames, bins, channels)``."""
    with tf.Graph().as_default(), v1.Session() as session:
        spectrogram = v1.placeholder(tf.float32, magnitude.shape)
        builder = EstimatorSpecBuilder({"mix_spectrogram": spectrogram}, params)
        v1.train.get_or_create_global_step()
        fetched = {
            name: builder.model_outputs[f"{name}_spectrogram"] for name in params["instrument_list"]
        }
        v1.train.Saver().restore(session, tf.train.latest_checkpoint(params["model_dir"]))
        np.savez(out, **session.run(fetched, {spectrogram: magnitude}))


def main():
    task, config, first, second = sys.argv[1:]
    params = json.loads(Path(config).read_text())
    if task == "make":
        make(params, Path(first), int(second))
    elif task == "run":
        run(Path(config), params, np.load(first), second)
    else:
        net(params, np.load(first), second)


if __name__ == "__main__":
    main()

"""Recipes that are sound, changes that must be refused, and the headers of the packaged ones."""

from trainflat.recipe import packaged_recipes

SOUND = {"task": "cola", "model": "minilm"}


ITERATIVE = "protocol={name: iterative, "


REFUSED: dict[str, tuple[list[str], str]] = {
    "unknown section": (["trainig.epochs=2"], "trainig is not a key of recipes. Did you mean 'training'?"),
    "unknown key": (["training.epoch=2"], "training.epoch is not a key of recipes. Did you mean 'epochs'?"),
    "unknown key, deep": (["evaluation.latency.batchs=[1]"], "evaluation.latency.batchs is not a key of recipes. Did"),
    "key of the model": (["model.layer=1"], "model.layer is not a key of recipes. Did you mean 'layers'? Known here:"),
    "wrong type": (["training.epochs=two"], "training.epochs: a number is expected, got 'two'."),
    "value is shown": (["training.epochs=two"], "got 'two'."),
    "wrong type in a list": (["evaluation.latency.batches=[1, a]"], "evaluation.latency.batches.1: a whole number is"),
    "below the least": (["evaluation.latency.batches=[0]"], "evaluation.latency.batches.0: a number of at least 1"),
    "no mapping": (["training=3"], "training: a mapping is expected, got 3."),
    "nothing": (["model="], "model: a mapping is expected, got nothing."),
    "not a number": (["training.warmup=.nan"], "training.warmup: "),
    "name for a folder": (["name=../up"], "name: letters, digits and . _ - make a run's folder"),
    "empty name": (["name="], "name: text is expected, got nothing."),
    "nothing for a name": (
        ["name=''"],
        "name: letters, digits and . _ - make a run's folder, a letter or digit first; got ''.",
    ),
    "name of a folder, too long": (["name=" + "a" * 300], "so 200 characters at most; got 300."),
    "truth for a number": (["training.epochs=true"], "training.epochs: a number is expected, got true."),
    "truth for a seed": (["seed=yes"], "seed: a number is expected, got true."),
    "truth in a task": (["task.rows=true"], "task.rows: a number is expected, got true."),
    "truth in a list": (["evaluation.latency.batches=[true]"], "evaluation.latency.batches: a number is expected"),
    "union": (["training.evaluate_every=never"], "training.evaluate_every: 'epoch' or a whole number is expected"),
    "union, number": (["training.evaluate_every=0"], "training.evaluate_every: 'epoch' or a number of at least 1 is"),
    "choice": (["training.schedule=cosin"], "training.schedule: 'linear', 'constant' or 'cosine' is expected, got"),
    "together": (["training.batch_size=33", "training.accumulate=2"], "training: batch_size 33 cannot be cut into acc"),
    "unknown task": (["task=colla"], "task: no task is called 'colla'. Did you mean 'cola'? Known: cola,"),
    "unknown protocol": (["protocol=iterativ"], "protocol: no protocol is called 'iterativ'. Did you mean 'iterative'"),
    "unknown pruner": ([ITERATIVE + "pruner: magnitud}"], "no pruner is called 'magnitud'. Did you mean 'magnitude'?"),
    "unknown optimizer": (["training.optimizer=samm"], "training.optimizer: no optimizer is called 'samm'. Did you me"),
    "unknown base": (["training.optimizer={name: sam, base: adamww}"], "no base optimizer is called 'adamww'. Did you"),
    "unknown option of a task": (["task.rws=5"], "task: no option of task 'cola' is called 'rws'. Did you mean 'rows'"),
    "option of another task": (["task.doc_stride=5"], "no option of task 'cola' is called 'doc_stride'."),
    "what the pipeline gives": (["task.seed=5"], "no option of task 'cola' is called 'seed'."),
    "unknown option of a protocol": ([ITERATIVE + "sparsity: 0.3}"], "is called 'sparsity'. Did you mean 'sparsities'"),
    "unknown option of an optimizer": (["training.optimizer={name: sam, roh: 1}"], "is called 'roh'. Did you mean 'rh"),
    "option of the wrong type": (["task.rows=1.5"], "task: rows: a whole number is expected, got 1.5."),
    "option, choice": ([ITERATIVE + "scope: row}"], "protocol: scope: 'global' or 'layer' is expected, got 'row'."),
    "option, list": ([ITERATIVE + "sparsities: [a]}"], "protocol: sparsities: a number is expected, got ['a']."),
    "option, order": ([ITERATIVE + "sparsities: [0.5, 0.3]}"], "ascending, got 0.3 after 0.5."),
    "option, sign": ([ITERATIVE + "rewind: -1}"], "protocol: rewind is a step of the dense training or none, got -1."),
    "option, not a number": (
        [ITERATIVE + "sparsities: [.nan]}"],
        "protocol: sparsities: finite numbers are expected, got [nan].",
    ),
    "tracker": (
        ["training.report_to=[tensorbord]"],
        "training.report_to: no tracker is called 'tensorbord'. Did you mean",
    ),
    "options that need each other": (["protocol={name: ticket, sparsity: 0.5}"], "protocol: run is missing: a found t"),
    "missing option": (["task=files"], "recipe: task 'files' needs train_file."),
    "no member": (["task={rows: 3}"], "task: name a task: cola, mrpc,"),
    "negative radius": (
        ["training.optimizer={name: sam, rho: -1}"],
        "training.optimizer: rho is the radius of the perturbation, a number >= 0, got -",
    ),
    "keys of a number": (["seed=1", "seed.x=1"], "--set seed.x: seed holds 1, which has no keys."),
    "keys of a list": (["task.evaluate=[a]", "task.evaluate.b=1"], "--set task.evaluate.b: evaluate holds ['a']"),
    "number as a key": (["task={name: cola, 1: 2}"], "1 is not a key of recipes, which are words."),
    "no value": (["training.epochs"], "--set takes key=value such as training.epochs=2, got 'training.epochs'."),
    "no key": (["=2"], "--set takes key=value"),
    "empty key": (["training..epochs=2"], "--set takes key=value such as training.epochs=2, got 'training..epochs=2'."),
    "not YAML": (["training.epochs=[1"], "--set training.epochs: '[1' is not a YAML value."),
    "no such date": (["name=2024-13-01"], "--set name: '2024-13-01' is not a YAML value."),
}


RECIPES = packaged_recipes()


GLUE = ("cola", "mrpc", "rte", "stsb", "sst2", "qnli", "qqp", "mnli")


FEW_ROWS = ("cola", "mrpc", "rte", "stsb")  # the paper's small tasks: 10 epochs


def header(name: str) -> list[str]:
    lines = RECIPES[name].read_text(encoding="utf8").split("\n")
    return [line.removeprefix("#").removeprefix(" ") for line in lines[: lines.index("")]]

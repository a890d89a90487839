"""Lists the tasks: each reads rows, encodes them, and scores predictions."""

from trainflat.core.registry import Registry
from trainflat.tasks.base import EncodedSplit, Head, Predictions, Task, Tokenizer
from trainflat.tasks.files import Files
from trainflat.tasks.glue import Cola, Mnli, Mrpc, Qnli, Qqp, Rte, Sst2, Stsb
from trainflat.tasks.squad import Squad
from trainflat.tasks.stdlib_docs import StdlibDocs

TASKS: Registry[Task] = Registry(
    "task",
    given={"data", "seed"},
    cola=Cola,
    mrpc=Mrpc,
    rte=Rte,
    stsb=Stsb,
    sst2=Sst2,
    qnli=Qnli,
    qqp=Qqp,
    mnli=Mnli,
    squad=Squad,
    stdlib_docs=StdlibDocs,
    files=Files,
)

__all__ = ["TASKS", "EncodedSplit", "Head", "Predictions", "Task", "Tokenizer"]

import time, collections
from tests.faults.power_loss import power_loss
from tests.faults.io_faults import count_operations
from tests.runtime.conftest import *
def one(tmp_path, name, **kw):
    t=time.perf_counter()
    c=time.process_time()
    with count_operations(tmp_path/name) as ops:
        run_tiny(tiny_config(**kw), tmp_path/name, "run", workers=0)
    first=next(i for i,o in enumerate(ops) if "rename run/checkpoints/round-000000" in o)
    print(name, len(ops), first, time.perf_counter()-t, time.process_time()-c, collections.Counter(o.split()[0] for o in ops))
    t=time.perf_counter()
    with power_loss(tmp_path/(name+"2")) as j:
        run_tiny(tiny_config(**kw), tmp_path/(name+"2"), "run", workers=0)
    print("with journal", time.perf_counter()-t)
    t=time.perf_counter()
    j.cut(tmp_path/(name+"3"))
    print("cut", time.perf_counter()-t)
    assert fingerprint(RunDirectory(tmp_path/(name+"3")/"run")) == fingerprint(RunDirectory(tmp_path/(name+"2")/"run"))
def test_a(tmp_path):
    R=20
    one(tmp_path,"warm",envs=("cartpole",), agents=2, steps=3*R, assignments=("checkpoints.interval_s=0", "checkpoints.keep=2", "meta.anneal_steps=40",f"schedule.round_steps={R}", f"schedule.updates_start={R}",f"exploration.random_steps={R}", f"evaluation.interval={R}"))
    one(tmp_path,"small",envs=("cartpole",), agents=2, steps=3*R, assignments=("checkpoints.interval_s=0", "checkpoints.keep=2", "meta.anneal_steps=40",f"schedule.round_steps={R}", f"schedule.updates_start={R}",f"exploration.random_steps={R}", f"evaluation.interval={R}"))
    one(tmp_path,"long", envs=("pendulum","cartpole"), agents=2, steps=4150, assignments=("checkpoints.interval_s=0", "checkpoints.keep=2", f"schedule.round_steps=1380", f"schedule.updates_start=4141",f"exploration.random_steps=4100", f"evaluation.interval=4150"))

"""Runs a wasm32-wasip2 program under wasmtime: python tests/wasi/component.py PROGRAM.wasm [argument...]

It sees the environment, the network, and of the disk the folder that it is run in. wasmtime's own command is in no registry as a program;
its Python package holds the same runtime.
"""

import sys
from pathlib import Path

from wasmtime import Engine, ExitTrap, Store, WasiConfig
from wasmtime._bindings import wasi_config_inherit_network
from wasmtime.component import Component, Linker

wasi = WasiConfig()
wasi.argv = sys.argv[1:]
wasi.inherit_env()
wasi.inherit_stdin()
wasi.inherit_stdout()
wasi.inherit_stderr()
wasi.preopen_dir(".", "/")
# The package has no method for it yet; the function is of wasmtime's public C interface.
wasi_config_inherit_network(wasi.ptr())

engine = Engine()
program, compiled = Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(".cwasm")
# To compile it takes seconds, each time.
if not compiled.exists() or compiled.stat().st_mtime <= program.stat().st_mtime:
    compiled.write_bytes(Component.from_file(engine, program).serialize())
linker = Linker(engine)
linker.add_wasip2()
store = Store(engine)
store.set_wasi(wasi)
instance = linker.instantiate(store, Component.deserialize_file(engine, str(compiled)))
# Any 0.2 is found by its first one.
interface = instance.get_export_index(store, "wasi:cli/run@0.2.0")
run = instance.get_func(store, instance.get_export_index(store, "run", interface))
try:
    failed = run(store).tag != "ok"
except ExitTrap as ended:
    failed = ended.code
sys.exit(int(failed))

"""Names that hostile pickles call, as scanners of pickles list them.

From the lists of picklescan, modelscan and fickling (November 2026), by module:
a pickle that names one of them is called unsafe there.
"""

_LISTED = """
__builtin__ eval exec compile open getattr apply breakpoint __import__ globals
builtins eval exec compile open getattr breakpoint __import__ locals setattr
posix system popen execv execve spawnv fork putenv
nt system popen startfile
os system popen execv spawnl posix_spawn kill remove rmdir unlink chmod
os.path expanduser
sys exit modules setprofile settrace
subprocess Popen run call check_call check_output getoutput getstatusoutput
commands getoutput
pty spawn
runpy run_path run_module _run_code
code interact InteractiveInterpreter InteractiveInterpreter.runcode
codeop compile_command
timeit timeit main Timer
profile run Profile.run
cProfile run runctx
pdb run set_trace
bdb Bdb.run
trace Trace.run
doctest debug_script
idlelib.pyshell ModifiedInterpreter.runcommand
idlelib.run Executive.runcode
lib2to3.pgen2.pgen ParserGenerator.make_label
distutils.file_util write_file
distutils.spawn spawn
asyncio.unix_events _UnixSubprocessTransport._start
asyncio create_subprocess_shell
multiprocessing.util spawnv_passfds
multiprocessing Process
concurrent.futures ProcessPoolExecutor
threading Thread
webbrowser open
socket socket create_connection
ssl SSLSocket
http.client HTTPSConnection
urllib.request urlopen urlretrieve
requests.api get post request
ftplib FTP
smtplib SMTP
telnetlib Telnet
ctypes CDLL windll
_ctypes dlopen
cffi FFI
shutil rmtree copy move
tempfile mktemp
pathlib Path Path.write_text
io open FileIO
fileinput input
linecache getlines
zipimport zipimporter
importlib import_module reload
importlib.machinery SourceFileLoader
imp load_source
pkgutil resolve_name
pydoc locate pipepager
pickle loads load Unpickler
_pickle loads
dill loads
cloudpickle loads
joblib load
marshal loads
types CodeType FunctionType
operator attrgetter methodcaller itemgetter
_operator attrgetter methodcaller
functools partial reduce
itertools starmap
copyreg _reconstructor add_extension
logging.config dictConfig fileConfig
signal signal
atexit register
gc get_objects
inspect currentframe
site addsitedir
venv create
ensurepip bootstrap
pip main
setuptools setup
numpy.testing._private.utils runstring
numpy load
numpy.f2py.crackfortran getlincoef _eval_length
numpy.lib.utils safe_eval
scipy.io loadmat
pandas read_pickle
torch load
torch.hub load load_state_dict_from_url
torch.serialization load
torch.jit.unsupported_tensor_ops execWrapper
torch.fx.experimental.symbolic_shapes ShapeEnv.evaluate_guards_expression
torch.utils.collect_env run
torch.utils.bottleneck.__main__ run_cprofile
torch.utils.data.datapipes.utils.decoder basichandlers
torch.utils._config_module ConfigModule.load_config
torch._inductor.codecache compile_file
torch._dynamo.guards GuardBuilder.get
torch.distributed.rpc rpc_sync
tensorflow io
keras.models load_model
aiohttp ClientSession
httplib HTTPConnection
ensurepip._bundled run
uuid _load_system_functions
platform popen
getpass getpass
readline read_init_file
sqlite3 connect
xmlrpc.client ServerProxy
"""

NAMES = tuple(
  (module, name)
  for module, *names in map(str.split, _LISTED.strip().splitlines())
  for name in names
)

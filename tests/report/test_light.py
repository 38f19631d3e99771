import subprocess
import sys


def test_reports_need_neither_torch_nor_an_engine_nor_rich():
    code = (
        "import sys\n"
        "from edgetl.report.page import run\n"
        "from edgetl.report.terminal import device, stages\n"
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'pydantic', 'rich', 'sklearn', 'PIL'}\n"
        "print(sorted(heavy & {m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

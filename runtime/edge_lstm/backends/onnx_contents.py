"""What an ONNX file may contain: operators of a list, all weights inside, no functions, no loops.

onnxruntime does what a graph says: it reads files of the device as weights, and repeats a loop without end. So each
file is read here first, with every branch and attribute. An unknown field is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from edge_lstm.backends.protobuf import BYTES, VARINT, Field, ProtobufError, ProtobufReader
from edge_lstm.foundation.errors import BackendError
from edge_lstm.foundation.text import printable


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators of ONNX that work on tensors in memory, by family. Absent: those that repeat a graph (Loop, Scan,
# SequenceMap), give random numbers, or work on texts, sequences and images.
_ONNX = _names(
    """
    LSTM GRU RNN Conv ConvTranspose Gemm MatMul Einsum Det
    MatMulInteger ConvInteger QLinearMatMul QLinearConv QuantizeLinear DequantizeLinear DynamicQuantizeLinear
    Add Sub Mul Div Mod Pow Neg Abs Sign Reciprocal Sqrt Exp Log Floor Ceil Round Sum Mean Max Min CumSum
    Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Erf Clip
    Sigmoid Tanh Relu LeakyRelu PRelu ThresholdedRelu Elu Celu Selu Gelu Mish HardSigmoid HardSwish Softplus Softsign
    Swish Softmax LogSoftmax Hardmax Shrink Dropout Identity
    And Or Not Xor Equal Less LessOrEqual Greater GreaterOrEqual IsNaN IsInf Where BitShift
    BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
    ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp
    ArgMax ArgMin TopK
    BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization LRN
    MeanVarianceNormalization
    AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool
    Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Gather GatherElements GatherND Scatter
    ScatterElements ScatterND Expand Tile Pad DepthToSpace SpaceToDepth Shape Size ReverseSequence Trilu EyeLike
    OneHot Range Constant ConstantOfShape Cast CastLike Compress NonZero Unique Resize Upsample
    DFT STFT HannWindow HammingWindow BlackmanWindow MelWeightMatrix Attention RotaryEmbedding
    If
    """
)
# Operators that onnxruntime adds: of int8-dynamic, and those that its own quantizer and optimizer write.
_ONNXRUNTIME = _names(
    """
    DynamicQuantizeLSTM DynamicQuantizeMatMul MatMulIntegerToFloat MatMulNBits QGemm QLinearAdd QLinearMul QLinearConcat
    QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearWhere QLinearAveragePool QLinearGlobalAveragePool
    QLinearReduceMean QuantizeLinear DequantizeLinear FusedMatMul FusedGemm FusedConv Gelu FastGelu BiasGelu QuickGelu
    LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization
    """
)
OPERATORS: Mapping[str, frozenset[str]] = {"": _ONNX, "ai.onnx": _ONNX, "com.microsoft": _ONNXRUNTIME}
_MOST_DEPTH = 16  # of graphs within graphs
_ORT_FORMAT = b"ORTM"  # from byte 4: onnxruntime's own file format, which is no ONNX
# Fields without weights and operators, by number, with their wire type.
_MODEL_SKIPPED = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 8: BYTES, 14: BYTES}
_GRAPH_SKIPPED = dict.fromkeys((2, 10, 11, 12, 13, 14, 16), BYTES)
_NODE_SKIPPED = dict.fromkeys((1, 2, 3, 4, 6, 7, 8, 9), BYTES)


def refuse_strange_graph(content: bytes, file: str) -> None:
    """Raise BackendError where the ONNX file holds anything that no bundle needs. `file`: its name, for messages."""
    try:
        if content[4:8] == _ORT_FORMAT:
            raise ProtobufError("a file of onnxruntime's own format")
        _GraphCheck(content).model()
    except ProtobufError as error:
        raise BackendError(
            f"{file}: expected an ONNX graph of known operators with all its weights inside, found {error}",
            "run no file of unknown origin; export the model again, without these parts",
        ) from None


class _GraphCheck:
    """Reads one ONNX file; every method raises ProtobufError for what is not allowed."""

    def __init__(self, content: bytes) -> None:
        self._reader = ProtobufReader(content)
        self._size = len(content)

    def model(self) -> None:
        graphs = 0
        for field in self._reader.fields(0, self._size):
            if field.number == 7:
                graphs += 1
                self._graph(field, 0)
            elif field.number == 25:
                raise ProtobufError("functions of its own")
            elif field.number == 20:
                raise ProtobufError("a graph for training")
            else:
                self._require(field, _MODEL_SKIPPED, "the model")
        if graphs != 1:  # protobuf merges several
            raise ProtobufError(f"{graphs} graphs")

    def _graph(self, graph: Field, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise ProtobufError(f"graphs within graphs, more than {_MOST_DEPTH} deep")
        for field in self._inside(graph):
            if field.number == 1:
                self._node(field, depth)
            elif field.number == 5:
                self._tensor(field)
            elif field.number == 15:
                raise ProtobufError("a sparse weight")
            else:
                self._require(field, _GRAPH_SKIPPED, "a graph")

    def _node(self, node: Field, depth: int) -> None:
        named: dict[int, list[str]] = {3: [], 4: [], 7: []}  # name, operator, domain
        for field in self._inside(node):
            if field.number == 5:
                self._attribute(field, depth)
                continue
            self._require(field, _NODE_SKIPPED, "a node")
            if field.number in named:
                named[field.number].append(self._reader.text(field))
        operators, domains = named[4], named[7]
        if len(operators) != 1 or len(domains) > 1:
            raise ProtobufError("a node without one operator")
        operator, domain = operators[0], (domains or [""])[0]
        if operator not in OPERATORS.get(domain, ()):
            place = f" (node {printable(named[3][0])[:60]})" if named[3] else ""
            of = f" of the domain {printable(domain)[:60]}" if domain else ""
            raise ProtobufError(f"the operator {printable(operator)[:60]}{of}{place}")

    def _attribute(self, attribute: Field, depth: int) -> None:
        descend: dict[int, Callable[[Field], None]] = {
            5: self._tensor,
            10: self._tensor,
            6: lambda field: self._graph(field, depth + 1),
            11: lambda field: self._graph(field, depth + 1),
        }
        for field in self._inside(attribute):
            if field.number in descend:
                descend[field.number](field)
            elif field.number in (22, 23):
                raise ProtobufError("a sparse weight")
            elif field.number not in (1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20):
                raise ProtobufError(f"an unknown field {field.number} of an attribute")

    def _tensor(self, tensor: Field) -> None:
        for field in self._inside(tensor):
            if field.number == 13 or (field.number == 14 and (field.wire != VARINT or field.value)):
                raise ProtobufError("weights in another file (external data)")
            if field.number not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16):
                raise ProtobufError(f"an unknown field {field.number} of a tensor")

    def _inside(self, message: Field) -> Iterator[Field]:
        if message.wire != BYTES:
            raise ProtobufError(f"a field {message.number} that is no message")
        return self._reader.fields(message.start, message.end)

    @staticmethod
    def _require(field: Field, known: Mapping[int, int], where: str) -> None:
        if known.get(field.number) != field.wire:
            raise ProtobufError(f"an unknown field {field.number} of {where}")

"""Which computed tokens can be used again: a radix tree over the KV cache's sequences. A state machine without I/O.

After SGLang's RadixAttention (Zheng et al., NeurIPS 2024), on sequences instead of pages. A node of the tree is a run
of cells; a path from the root is a prefix that some llama.cpp sequence holds. A new request whose tokens begin with
such a prefix shares its cells through a sequence copy, which moves no data in a unified cache.

Running requests *pin* their path: pinned cells are needed. What nobody pins stays as long as nobody needs its cells;
the least recently used leaf goes first, from its end. Every leaf names one sequence that holds its whole path, its
*holder*; an inner node is held by the holders below it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xinfer_runtime.engines.llama_cpp.cell_operations import Merge, Operation, Remove, Save, Share


@dataclass(eq=False, slots=True)
class Node:
    """The cells of `tokens`, the last of which is at position `end - 1`. `pins` counts the requests that need them."""

    tokens: list[int]
    end: int
    parent: "Node | None" = None
    children: dict[int, "Node"] = field(default_factory=dict)
    pins: int = 0
    holder: int = -1
    used: int = 0
    condemned: bool = False
    saved: bool = False
    """Whether its path was offered to whoever saves what is removed."""

    @property
    def start(self) -> int:
        return self.end - len(self.tokens)

    def path(self) -> Iterator["Node"]:
        """This node and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True)
class Match:
    """The longest known prefix: the path to `node`, and `extra` tokens of its child `child`."""

    node: Node
    child: Node | None
    extra: int

    @property
    def length(self) -> int:
        return self.node.end + self.extra

    @property
    def unpinned(self) -> int:
        """Cells of the prefix that nobody needs yet."""
        cells = sum(len(node.tokens) for node in self.node.path() if not node.pins)
        return cells + (self.extra if self.child is not None and not self.child.pins else 0)


class PrefixCache:
    """The tree, and the sequences 0 to `sequences` - 1 of the KV cache.

    A request `enter`s with a match and gets a sequence and a node, the end of its path; it may `commit` what it
    computed beyond, and `leave`s with the rest, or is `discard`ed with all that it had, if that cannot be trusted.
    `retained` bounds the cells that nobody pins; None keeps and shares nothing. Prefixes of at least `worth_saving`
    tokens are offered to be saved before they are removed; None offers none.
    """

    def __init__(self, sequences: int, retained: int | None, worth_saving: int | None = None) -> None:
        self.root = Node([], 0)
        self._roots = {"": self.root}
        """What was computed with an adapter is of use to nobody without it: each has a tree of its own."""
        self.cells = 0
        """Cells in the tree."""
        self.pinned = 0
        """Those of them that running requests need."""
        self._retained = retained
        self._worth_saving = worth_saving
        self._free = list(range(sequences - 1, -1, -1))
        self._running: set[int] = set()
        self._leaves: set[Node] = set()
        self._operations: list[Operation | Save] = []
        self._clock = 0
        self._any_condemned = False

    @property
    def sharing(self) -> bool:
        return self._retained is not None

    def operations(self) -> list[Operation | Save]:
        """What has to be done to the KV cache since the last call."""
        operations, self._operations = self._operations, []
        return operations

    def match(self, tokens: Sequence[int], most: int, least: int = 1, adapter: str = "") -> Match:
        """The longest known prefix of the tokens under an adapter, `most` tokens at most; none if that is fewer than
        `least`.
        """
        root = self._roots.setdefault(adapter, Node([], 0))
        longest = self._longest(root, tokens, most)
        return longest if longest.length >= least else Match(root, None, 0)

    def _longest(self, node: Node, tokens: Sequence[int], most: int) -> Match:
        while node.end < most:
            child = node.children.get(tokens[node.end])
            if child is None or child.condemned:
                break
            common = _common(child.tokens, tokens[node.end : min(most, child.end)])
            if common < len(child.tokens):
                return Match(node, child, common)
            node = child
        return Match(node, None, 0)

    def enter(self, match: Match) -> tuple[int, Node] | None:
        """A sequence that holds the prefix, and the end of its path; None if there is no sequence to be had."""
        node = match.node
        if match.child is not None:
            node = self._split(match.child, match.extra)
        self._pin(node)
        self._touch(node)
        while not self._free and not _to_be_taken_over(node) and (leaf := self._least_recently_used()) is not None:
            self._trim(leaf, len(leaf.tokens))
        if _to_be_taken_over(node):
            self._running.add(node.holder)
            return node.holder, node
        if not self._free:
            self._unpin(node)
            return None
        sequence = self._free.pop()
        if node.parent is not None:
            self._operations.append(Share(self._holder(node), sequence, node.end))
        self._running.add(sequence)
        return sequence, node

    def commit(self, sequence: int, node: Node, tokens: Sequence[int]) -> Node:
        """Let others use the cells of `tokens` that the sequence computed after `node`. Returns the path's new end.

        Where the same tokens were committed in the meantime, the sequence shares those cells and gives up its own.
        """
        done = 0
        while done < len(tokens) and (child := node.children.get(tokens[done])) is not None:
            if child.condemned:
                return node
            common = _common(child.tokens, tokens[done:])
            node = child if common == len(child.tokens) else self._split(child, common)
            self._operations.append(Merge(self._holder(node), sequence, node.start, node.end))
            self._pin_node(node)
            done += common
        rest = list(tokens[done:])
        if not rest:
            return node
        self.cells += len(rest)
        self.pinned += len(rest)
        if node.holder == sequence and node.pins == 1:
            node.tokens += rest
            node.end += len(rest)
            node.saved = False
            return node
        leaf = Node(rest, node.end + len(rest), node, pins=1, holder=sequence, condemned=node.condemned)
        node.children[rest[0]] = leaf
        self._leaves.add(leaf)
        self._leaves.discard(node)
        if node.holder >= 0 and node.holder not in self._running:
            self._release(node.holder)
        node.holder = -1
        return leaf

    def leave(self, sequence: int, node: Node, tokens: Sequence[int]) -> None:
        """The request ends; `tokens` were computed after `node`. What can be kept is kept."""
        if self.sharing:
            end = node.end + len(tokens)
            node = self.commit(sequence, node, tokens)
            if node.holder == sequence and node.end < end:
                self._operations.append(Remove(sequence, node.end))
        self._quit(sequence, node)

    def discard(self, sequence: int, node: Node) -> None:
        """The request failed: nobody shall use what it computed, nor what it computed that from."""
        self._operations.append(Remove(sequence, node.end))
        top = next((each for each in node.path() if _is_top(each)), None)
        if top is not None:
            self._any_condemned = True
            stack = [top]
            while stack:
                each = stack.pop()
                each.condemned = True
                stack += each.children.values()
        self._quit(sequence, node)

    def evict(self, cells: int) -> int:
        """Free so many cells that nobody needs, or all there are. Returns how many."""
        freed = 0
        while freed < cells and (leaf := self._least_recently_used()) is not None:
            count = min(cells - freed, len(leaf.tokens))
            self._trim(leaf, count)
            freed += count
        return freed

    def resident(self) -> list[Save]:
        """Every prefix that is worth saving, the last used first, once the operations are carried out."""
        leaves = sorted((leaf for leaf in self._leaves if self._is_worth_saving(leaf)), key=lambda leaf: -leaf.used)
        return [self._saving_of(leaf) for leaf in leaves]

    def _quit(self, sequence: int, node: Node) -> None:
        self._running.discard(sequence)
        self._touch(node)
        self._unpin(node)
        if node.holder != sequence:
            self._release(sequence)
        if self._any_condemned:
            self._forget_condemned()
        self.evict(self.cells - self.pinned - (self._retained or 0))

    def _forget_condemned(self) -> None:
        while dead := [leaf for leaf in self._leaves if leaf.condemned and not leaf.pins]:
            for leaf in dead:
                self._trim(leaf, len(leaf.tokens))
        self._any_condemned = any(leaf.condemned for leaf in self._leaves)

    def _least_recently_used(self) -> Node | None:
        return min((leaf for leaf in self._leaves if not leaf.pins), key=lambda leaf: leaf.used, default=None)

    def _trim(self, leaf: Node, count: int) -> None:
        """Free the last cells of a leaf, and the leaf if they were all; its sequence then holds the node above."""
        self._offer(leaf)
        first = leaf.tokens[0]
        del leaf.tokens[-count:]
        leaf.end -= count
        self.cells -= count
        if leaf.tokens:
            self._operations.append(Remove(leaf.holder, leaf.end))
            return
        parent = leaf.parent
        assert parent is not None
        del parent.children[first]
        self._leaves.discard(leaf)
        if parent.parent is None or parent.children:
            self._release(leaf.holder)
        else:
            self._operations.append(Remove(leaf.holder, parent.end))
            parent.holder = leaf.holder
            parent.saved = leaf.saved
            self._leaves.add(parent)

    def _offer(self, leaf: Node) -> None:
        """Have the path of a leaf saved, once, while it is whole."""
        if self._is_worth_saving(leaf) and not leaf.saved:
            leaf.saved = True
            self._operations.append(self._saving_of(leaf))

    def _is_worth_saving(self, leaf: Node) -> bool:
        return self._worth_saving is not None and leaf.end >= self._worth_saving and not leaf.condemned

    def _saving_of(self, leaf: Node) -> Save:
        nodes = list(leaf.path())[::-1]
        tokens = [token for node in nodes for token in node.tokens]
        adapter = next(name for name, root in self._roots.items() if root is nodes[0].parent)
        return Save(leaf.holder, adapter, tokens)

    def _split(self, node: Node, length: int) -> Node:
        """Cut a node after `length` tokens. Returns the upper part."""
        parent = node.parent
        assert parent is not None
        upper = Node(
            node.tokens[:length],
            node.start + length,
            parent,
            pins=node.pins,
            used=node.used,
            condemned=node.condemned,
        )
        parent.children[upper.tokens[0]] = upper
        node.tokens = node.tokens[length:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    def _holder(self, node: Node) -> int:
        while node.holder < 0:
            node = next(iter(node.children.values()))
        return node.holder

    def _release(self, sequence: int) -> None:
        self._operations.append(Remove(sequence, 0))
        self._free.append(sequence)

    def _touch(self, node: Node) -> None:
        self._clock += 1
        for each in node.path():
            each.used = self._clock

    def _pin(self, node: Node) -> None:
        for each in node.path():
            self._pin_node(each)

    def _pin_node(self, node: Node) -> None:
        if not node.pins:
            self.pinned += len(node.tokens)
        node.pins += 1

    def _unpin(self, node: Node) -> None:
        for each in node.path():
            each.pins -= 1
            if not each.pins:
                self.pinned -= len(each.tokens)


def _is_top(node: Node) -> bool:
    """Whether the node hangs on a root."""
    return node.parent is not None and node.parent.parent is None


def _to_be_taken_over(node: Node) -> bool:
    """Whether the sequence that holds a node just pinned serves nobody else."""
    return node.pins == 1 and node.holder >= 0


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(i for i in range(length) if one[i] != other[i])

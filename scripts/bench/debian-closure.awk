# Chooses the packages of debian-closure. Reads `apt-cache dumpavail`; prints
# one tab-separated line per package, dependencies before their users:
#   name  version  architecture  deb-size  sha256  installed-bytes  dep dep …
# Variables: roots (space-separated), arch, packages (limit), bytes (limit, 0: none).
#
# Every line names only packages of earlier lines: the order is a depth-first
# postorder, and the edge that would close one of Debian's dependency cycles
# (libc6 -> libgcc-s1 -> libc6) is dropped. So any prefix is a closed set.
# The list ends before the package that would pass a limit. The walk keeps its
# own stack, because mawk's is small.

BEGIN { RS = ""; FS = "\n" }

{
  delete field
  for (i = 1; i <= NF; i++)
    if (match($i, /^(Package|Version|Architecture|Installed-Size|Size|SHA256|Depends|Pre-Depends|Provides): /))
      field[substr($i, 1, RLENGTH - 2)] = substr($i, RLENGTH + 1)
  name = field["Package"]
  if (field["Architecture"] != arch && field["Architecture"] != "all") next
  if (field["SHA256"] == "" || (name in version)) next
  version[name] = field["Version"]
  architecture[name] = field["Architecture"]
  installed[name] = field["Installed-Size"] * 1024
  size[name] = field["Size"]
  sha256[name] = field["SHA256"]
  depends[name] = field["Pre-Depends"] ((field["Pre-Depends"] != "" && field["Depends"] != "") ? ", " : "") field["Depends"]
  count = split(field["Provides"], provided, /, */)
  for (i = 1; i <= count; i++) {
    virtual = bare(provided[i])
    if (!(virtual in provider) || name < provider[virtual]) provider[virtual] = name
  }
}

END {
  rootCount = split(roots, root, " ")
  for (r = 1; r <= rootCount && !full; r++) {
    if (!(root[r] in version)) {
      print "debian-closure: apt knows no package " root[r] ", left out" > "/dev/stderr"
      continue
    }
    walk(root[r])
  }
}

# "libc6:any (>= 2.36)" -> "libc6"
function bare(dependency) {
  sub(/^[ \t]+/, "", dependency)
  sub(/[ \t(:\[].*$/, "", dependency)
  return dependency
}

# The package that satisfies "a (>= 1) | b": the first real alternative, else
# the alphabetically first provider of the first virtual one, else "".
function resolve(alternatives,    part, count, i) {
  count = split(alternatives, part, /\|/)
  for (i = 1; i <= count; i++)
    if (bare(part[i]) in version) return bare(part[i])
  for (i = 1; i <= count; i++)
    if (bare(part[i]) in provider) return provider[bare(part[i])]
  return ""
}

# state: 1 on the stack, 2 printed. edge[name, i]: its i-th dependency.
function walk(start,    depth, stack, next_, name, dependency) {
  if (state[start] == 2) return
  depth = 1; stack[1] = start; open_(start); next_[1] = 0
  while (depth > 0 && !full) {
    name = stack[depth]
    if (next_[depth] == edges[name]) { emit(name); depth--; continue }
    dependency = edge[name, ++next_[depth]]
    if (!(dependency in state)) {
      depth++; stack[depth] = dependency; open_(dependency); next_[depth] = 0
    }
  }
}

function open_(name,    part, count, i, dependency) {
  state[name] = 1
  edges[name] = 0
  count = split(depends[name], part, /, */)
  for (i = 1; i <= count; i++) {
    dependency = resolve(part[i])
    if (dependency != "" && dependency != name && !((name, dependency) in seen)) {
      seen[name, dependency] = 1
      edge[name, ++edges[name]] = dependency
    }
  }
}

function emit(name,    line, separator, i) {
  total += installed[name]
  if (bytes > 0 && total > bytes && emitted) { full = 1; return }
  line = name "\t" version[name] "\t" architecture[name] "\t" size[name] "\t" sha256[name] "\t" installed[name] "\t"
  for (i = 1; i <= edges[name]; i++)
    if (state[edge[name, i]] == 2) { line = line separator edge[name, i]; separator = " " }
  print line
  state[name] = 2
  if (++emitted == packages) full = 1
}

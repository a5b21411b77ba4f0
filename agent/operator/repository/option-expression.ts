/** What all expressions begin with: the hosts of a file or a flake, each with `config` and `options`. */
const HOSTS = `
{ file, flake, hosts ? "[ ]", path ? "[ ]", details ? "" }:
let
  source = if flake != "" then (builtins.getFlake flake).nixosConfigurations else import (/. + file);
  root = if builtins.isFunction source then source { } else source;
  all = if root ? config && root ? options then { "" = root; } else root;
in
`;

/** Evaluates to the names of all hosts, without evaluating a host. */
export const NAMES_EXPRESSION = `${HOSTS}
builtins.attrNames all
`;

/**
 * Shows a value as JSON: a derivation becomes its store path, and what JSON cannot say becomes its
 * kind. Definitions have mkIf, mkMerge and the like in them still: `contents` is what they amount to.
 */
const SHOW = `
  discard = builtins.unsafeDiscardStringContext;
  textOf = value:
    if builtins.isString value then value
    else if builtins.isAttrs value && builtins.isString (value.text or null) then value.text
    else null;

  contents = value:
    let
      tried = builtins.tryEval value;
      it = tried.value;
      type = if tried.success && builtins.isAttrs it && it ? _type then it._type else null;
      condition = builtins.tryEval it.condition;
    in
    if type == "if" then if condition.success && condition.value then contents it.content else [ ]
    else if type == "merge" then builtins.concatMap contents it.contents
    else if type == "override" || type == "order" then contents it.content
    else if type == "definition" then contents it.value
    else [ value ];
  # Definitions of sets are parts of one set, those of lists of one list.
  whole = values:
    let
      sets = builtins.all builtins.isAttrs values && !builtins.any isDerivation values;
      names = builtins.attrNames (builtins.foldl' (a: b: a // b) { } values);
    in
    if builtins.length values == 1 then builtins.head values
    else if sets then
      builtins.listToAttrs (map (name: {
        inherit name;
        value = {
          _type = "merge";
          contents = map (set: set.\${name}) (builtins.filter (set: builtins.hasAttr name set) values);
        };
      }) names)
    else if builtins.all builtins.isList values then builtins.concatLists values
    else values;
  isDerivation = value: value.type or null == "derivation";

  # Deeper values are mostly package sets that refer to themselves.
  MAX_DEPTH = 12;
  # What fails is "«error»"; but a list is no list with an element that fails.
  showValue = showAt true 0;
  showDefinition = showAt false 0;
  showAt = strict: depth: value:
    let
      tried = builtins.tryEval (whole (contents value));
      it = tried.value;
      type = builtins.typeOf it;
      further = showAt strict (depth + 1);
      holds = builtins.tryEval it.assertion;
      held = builtins.filter (name: contents it.\${name} != [ ]) (builtins.attrNames (builtins.removeAttrs it [ "_module" ]));
    in
    if !tried.success then "«error»"
    else if depth > MAX_DEPTH then "«…»"
    else if type == "lambda" then "«function»"
    else if type == "path" then toString it
    else if type == "string" then discard it
    else if type == "list" then map (item: if strict then builtins.seq item (further item) else further item)
        (builtins.filter (item: contents item != [ ]) it)
    else if type != "set" then it
    else if isDerivation it then
      let path = builtins.tryEval it.outPath; in if path.success then discard path.value else "«derivation»"
    else if textOf it != null && it ? _type then textOf it
    else if it._type or "" == "pkgs" || it ? recurseForDerivations || it ? callPackage then "«packages»"
    else if builtins.isString (it._type or null) then "«\${it._type}»"
    else if it ? __functor then "«function»"
    else if it ? __toString then discard (toString it)
    # The message of an assertion that holds may not be evaluated.
    else if it ? assertion && it ? message && holds.success && holds.value == true then { assertion = true; }
    else builtins.listToAttrs (map (name: { inherit name; value = further it.\${name}; }) held);
`;

/**
 * The definitions of what `names` leads to, also those that another one overrides, which the module
 * system does not tell: all modules of a host are read once more, with the host's own configuration,
 * in the way of nixpkgs' lib/modules.nix. `null` if a host does not tell its modules.
 */
const DEFINITIONS = `
  isFunction = value: builtins.isFunction value || (builtins.isAttrs value && value ? __functor);
  argumentsOf = function:
    if builtins.isFunction function then builtins.functionArgs function
    else function.__functionArgs or (argumentsOf (function.__functor function));

  modulesOf = host:
    let
      payload = host.type.functor.payload or { };
      given = host.type.getSubModules or payload.modules or null;
      specialArgs = payload.specialArgs or { };
      moduleArgs = host._module.args or host.config._module.args or { };
      # Nothing else gives the lib of a bare evaluation.
      told = host.extendModules { modules = [ ({ lib, ... }: { _module.args.itsOwnLib = lib; }) ]; };
      arguments = {
        inherit (host) options;
        inherit specialArgs;
        config = host.config // { _module = host._module or { }; };
        lib = host.lib or host.pkgs.lib or told._module.args.itsOwnLib;
        _class = host.class or null;
        _prefix = [ ];
      } // specialArgs;
      call = function: function (
        arguments // builtins.mapAttrs (name: _: arguments.\${name} or moduleArgs.\${name}) (argumentsOf function)
      );

      # A module's file, key, imports and config, whatever way it is written in.
      read = file: key: module:
        if isFunction module then unified file key (call module)
        else if builtins.isAttrs module then
          unified file key (if module._type or "module" == "module" then module else { config = module; })
        else
          let
            name = toString module;
            content = import module;
          in
          unified name name (if isFunction content then call content else content);
      unified = file: key: module: rec {
        key' = toString (module.key or key);
        file' = toString (module._file or file);
        disabled = module.disabledModules or [ ];
        config =
          if module ? config || module ? options then module.config or { }
          else builtins.removeAttrs module
            [ "_class" "_file" "key" "disabledModules" "require" "imports" "freeformType" ];
        imported = readAll file' key' (module.require or [ ] ++ module.imports or [ ]);
      };
      readAll = file: key: modules:
        builtins.genList (
          at:
          let module = read file "\${key}:anon-\${toString (at + 1)}" (builtins.elemAt modules at); in
          { key = module.key'; inherit module; }
        ) (builtins.length modules);
      closure = keep: builtins.genericClosure {
        startSet = builtins.filter keep (readAll "an unknown file" "" given);
        operator = item: builtins.filter keep item.module.imported;
      };
      everything = closure (_: true);
      disabledKeys = builtins.concatMap (item: map (
        disabled:
        if builtins.isString disabled && builtins.substring 0 1 disabled != "/" then
          "\${toString (arguments.modulesPath or "")}/\${disabled}"
        else if builtins.isAttrs disabled && disabled ? key then disabled.key
        else toString disabled
      ) item.module.disabled) everything;
    in
    if given == null then null
    else map (item: item.module)
      (if disabledKeys == [ ] then everything else closure (item: !builtins.elem item.key disabledKeys));

  # What a definition amounts to, where its conditions hold: values with priorities.
  discharge = state@{ file, priority }: value:
    let
      type = if builtins.isAttrs value && builtins.isString (value._type or null) then value._type else "";
    in
    if type == "merge" then builtins.concatMap (discharge state) value.contents
    else if type == "if" then if value.condition then discharge state value.content else [ ]
    else if type == "override" then
      discharge (state // { priority = if priority == null then value.priority else priority; }) value.content
    else if type == "order" then discharge state value.content
    else if type == "definition" then discharge (state // { file = toString value.file; }) value.value
    else [ { inherit file value; priority = if priority == null then 100 else priority; overridden = false; } ];

  # What a module's config says of the option, whose path has the first "upTo" names. On the way to it, the
  # module system pushes conditions down, and asks them only if there is a definition.
  definitionIn = upTo: depth: conditions: state: value:
    let
      type = if builtins.isAttrs value && builtins.isString (value._type or null) then value._type else "";
    in
    if depth == upTo then
      if builtins.all (condition: condition) conditions then discharge state value else [ ]
    else if type == "merge" then builtins.concatMap (definitionIn upTo depth conditions state) value.contents
    else if type == "if" then
      definitionIn upTo depth (conditions ++ [ value.condition ]) state value.content
    else if type == "override" then
      definitionIn upTo depth conditions
        (state // { priority = if state.priority == null then value.priority else state.priority; })
        value.content
    else if builtins.isAttrs value && builtins.hasAttr (at depth) value then
      definitionIn upTo (depth + 1) conditions state value.\${at depth}
    else [ ];

  # Marks those that another one overrides, and goes on within the values: each level has priorities of its own.
  level = depth: definitions:
    let
      least = builtins.foldl' (
        least: { priority, overridden, ... }: if !overridden && priority < least then priority else least
      ) 1500 definitions;
      marked = map (it: it // { overridden = it.overridden || it.priority > least; }) definitions;
      parts = it:
        if builtins.isAttrs it.value && builtins.hasAttr (at depth) it.value then
          map (part: part // (if it.overridden then { inherit (it) priority overridden; } else { }))
            (discharge { inherit (it) file; priority = null; } it.value.\${at depth})
        else [ ];
    in
    if depth == length then marked else level (depth + 1) (builtins.concatMap parts marked);

  definitionsOf = host: upTo:
    let modules = modulesOf host; in
    if modules == null then null
    else level upTo (builtins.concatMap (
      module: definitionIn upTo 0 [ ] { file = module.file'; priority = null; } module.config
    ) modules);
`;

/**
 * Evaluates to what an option is on each of the hosts named, by hostname. Without `details` it leaves
 * out what a host's own modules may make fail although the option has a value. Names and paths get
 * there as strings, never as Nix text.
 */
export const OPTION_EXPRESSION = `${HOSTS}
let
  names = builtins.fromJSON path;
  length = builtins.length names;
  at = builtins.elemAt names;
  detailed = details != "";
  isOption = value: builtins.isAttrs value && value._type or "" == "option";
  optional = name: value: if value == null then { } else { \${name} = value; };
  ${SHOW}
  ${DEFINITIONS}

  # Goes on within the value of an option: by names in a set, by numbers in a list.
  inside = depth: value:
    let
      name = at depth;
      count = builtins.length value;
      numbers = builtins.genList toString count;
      index = builtins.fromJSON name;
    in
    if depth == length then { found = value; }
    else if builtins.isAttrs value && builtins.hasAttr name value then
      inside (depth + 1) value.\${name}
    else if builtins.isList value && builtins.elem name numbers then
      inside (depth + 1) (builtins.elemAt value index)
    else
      {
        unknown = {
          kind = "unknown";
          inherit depth;
          names =
            if builtins.isAttrs value then builtins.attrNames (builtins.removeAttrs value [ "_module" ])
            else if builtins.isList value then numbers
            else [ ];
        };
      };

  # The option of a submodule that the rest of the names leads to, or null.
  optionInside = depth: type:
    let
      name = type.name or "";
      nested = type.nestedTypes or { };
    in
    if depth == length then null
    else if name == "submodule" then optionAmong depth (type.getSubOptions [ ])
    else if builtins.elem name [ "attrsOf" "lazyAttrsOf" "listOf" ] && nested ? elemType then
      optionInside (depth + 1) nested.elemType
    else if nested ? elemType then optionInside depth nested.elemType
    else if nested ? finalType then optionInside depth nested.finalType
    else null;
  optionAmong = depth: options:
    if depth == length || !builtins.hasAttr (at depth) options then null
    else
      let it = options.\${at depth}; in
      if !isOption it then optionAmong (depth + 1) it
      else if depth + 1 == length then it
      else optionInside (depth + 1) it.type;

  about = option:
    let text = textOf (option.defaultText or null);
    in
    optional "type" (option.type.description or null)
    // optional "description" (textOf (option.description or null))
    // (
      if text != null then { defaultText = text; }
      else if option ? default then { default = showDefinition option.default; }
      else { }
    );

  definitionList = host: option: depth:
    let
      # Older versions of nixpkgs know only the files.
      told = option.definitionsWithLocations or (map (file: { inherit file; }) (option.files or [ ]));
      shown = definition:
        { file = toString definition.file; }
        // (if definition ? value then { value = showDefinition definition.value; } else { });
      found = if detailed then definitionsOf host depth else null;
      inForce = builtins.filter (definition: !definition.overridden) found;
      overridden = builtins.filter (definition: definition.overridden) found;
      with' = more: definition: shown definition // { inherit (definition) priority; } // more;
    in
    if found == null then
      # The module system lists a default as a definition in the file that declares the option.
      if depth == length then if option.highestPrio or 100 < 1500 then map shown told else [ ]
      else map (definition: { file = toString definition.file; }) told
    else map (with' { }) inForce ++ map (with' { overridden = true; }) overridden;

  describe = host: option: config: depth:
    let
      value = if option ? value then option.value else config;
      reached = inside depth value;
      inner = if depth == length then option else if detailed then optionInside depth (option.type or { }) else null;
    in
    if !(option.isDefined or true) then
      { kind = "undefined"; } // optional "type" (option.type.description or null)
    else if reached ? unknown then reached.unknown
    else
      {
        kind = "option";
        value = builtins.seq reached.found (showValue reached.found);
        definitions = definitionList host option depth;
        declarations = map toString ((if inner == null then option else inner).declarations or [ ]);
      }
      // (if inner == null then { } else about inner);

  walk = host: options: config: depth:
    if isOption options then describe host options config depth
    else if depth == length then
      { kind = "set"; names = builtins.attrNames (builtins.removeAttrs options [ "_module" ]); }
    else if builtins.hasAttr (at depth) options then
      walk host options.\${at depth} config.\${at depth} (depth + 1)
    else { kind = "unknown"; inherit depth; names = builtins.attrNames (builtins.removeAttrs options [ "_module" ]); };
in
builtins.listToAttrs (
  map (name: {
    inherit name;
    value = let host = all.\${name}; in walk host host.options host.config 0;
  }) (builtins.fromJSON hosts)
)
`;

# A stand-in for nixpkgs' `lib`, for machines without nixpkgs: what the module, the package
# and the harness beside this file use, and no more.
#
# Kept from the original: options and definitions merge by priority; mkIf, mkMerge and
# mkOverride are pushed down lazily, so that a condition may read the configuration;
# undeclared options are refused, or collected where there is a freeform type; types check
# and merge values; options tell value, priority, files, definitions and declarations, and an
# evaluation its modules and their arguments.
#
# Left out: mkBefore and mkAfter, apply, option declarations that merge, disabledModules,
# `_module.args`, renamed options, and the original's messages. Set NIXOS_PULL_NIXPKGS to a
# nixpkgs tree (its `lib` is enough) to run the same tests against the original.
let
  inherit (builtins)
    all
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    hasAttr
    head
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    mapAttrs
    match
    removeAttrs
    split
    stringLength
    substring
    ;

  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: value: if condition then value else { };
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    stringLength text >= stringLength suffix
    && substring (stringLength text - stringLength suffix) (stringLength suffix) text == suffix;
  removePrefix =
    prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  last = list: elemAt list (length list - 1);
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  names = sets: unique (concatMap attrNames sets);
  genAttrs =
    keys: value:
    listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) keys
    );
  filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
  recursiveUpdate =
    left: right:
    left
    // mapAttrs (
      name: value:
      if isAttrs value && isAttrs (left.${name} or null) then
        recursiveUpdate left.${name} value
      else
        value
    ) right;

  ## Properties

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  defaultPriority = 100;

  # Attribute sets of which `value` consists, without asking any condition.
  pushDown =
    value:
    let
      type = value._type or "";
    in
    if type == "merge" then
      concatMap pushDown value.contents
    else if type == "if" then
      map (mapAttrs (_: mkIf value.condition)) (pushDown value.content)
    else if type == "override" then
      map (mapAttrs (_: mkOverride value.priority)) (pushDown value.content)
    else
      [ value ];

  # Values with priorities, where the conditions hold.
  discharge =
    value:
    let
      type = value._type or "";
    in
    if type == "merge" then
      concatMap discharge value.contents
    else if type == "if" then
      if value.condition then discharge value.content else [ ]
    else if type == "override" then
      map (definition: definition // { inherit (value) priority; }) (discharge value.content)
    else
      [
        {
          priority = defaultPriority;
          inherit value;
        }
      ];

  mergeDefinitions =
    path: type: definitions:
    let
      top = foldl' (a: { priority, ... }: if priority < a then priority else a) 9999 definitions;
      values = map (d: d.value) (filter (d: d.priority == top) definitions);
      option = concatStringsSep "." path;
      wrong = filter (d: d.priority == top && !type.check d.value) definitions;
    in
    if values == [ ] then
      throw "The option `${option}' was accessed but has no value defined. Try setting the option."
    else if wrong != [ ] then
      throw "A definition for option `${option}' is not of type `${type.description}'. Definition values:${
        builtins.concatStringsSep "" (map (d: "\n- In `${d.file or "<unknown-file>"}'") wrong)
      }"
    else
      type.merge path values;

  ## Modules

  isOption = value: value._type or "" == "option";
  # The options that a file declares, which they tell.
  declaredIn =
    file: mapAttrs (_: it: if isOption it then it // { declarations = [ file ]; } else declaredIn file it);
  mkOption = attributes: attributes // { _type = "option"; };
  mkEnableOption =
    name:
    mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to enable ${name}.";
    };

  declare =
    path: left: right:
    genAttrs
      (names [
        left
        right
      ])
      (
        name:
        if !(left ? ${name}) then
          right.${name}
        else if !(right ? ${name}) then
          left.${name}
        else if isOption left.${name} || isOption right.${name} then
          throw "The option `${concatStringsSep "." (path ++ [ name ])}' is already declared."
        else
          declare (path ++ [ name ]) left.${name} right.${name}
      );

  # Values of a tree of options, what they tell, and the definitions that no option of it takes.
  # A definition is `{ file, value }`.
  evaluateTree =
    path: options: definitions:
    let
      sets = concatMap ({ file, value }: map (value: { inherit file value; }) (pushDown value)) definitions;
      dischargeIn = { file, value }: map (it: { inherit file; } // it) (discharge value);
      results = mapAttrs (
        name: option:
        let
          own = map (
            { file, value }:
            {
              inherit file;
              value = value.${name};
            }
          ) (filter (set: hasAttr name set.value) sets);
          below = evaluateTree (path ++ [ name ]) option own;
          default = optional (option ? default) {
            file = head option.declarations;
            priority = 1500;
            value = option.default;
          };
          found = concatMap dischargeIn own ++ default;
          first = foldl' (least: { priority, ... }: if priority < least then priority else least) 9999 found;
          inForce = filter ({ priority, ... }: priority == first) found;
          value = mergeDefinitions (path ++ [ name ]) option.type found;
        in
        if isOption option then
          {
            config = value;
            options = option // {
              inherit value;
              highestPrio = first;
              isDefined = found != [ ];
              definitions = map (it: it.value) inForce;
              files = map (it: it.file) inForce;
              definitionsWithLocations = map ({ file, value, ... }: { inherit file value; }) inForce;
            };
            undeclared = [ ];
          }
        else
          {
            inherit (below) config options;
            undeclared = map (set: { ${name} = set; }) below.undeclared;
          }
      ) options;
    in
    {
      config = mapAttrs (_: result: result.config) results;
      options = mapAttrs (_: result: result.options) results;
      undeclared =
        filter (set: attrNames set != [ ]) (map (set: removeAttrs set.value (attrNames options)) sets)
        ++ concatMap (result: result.undeclared) (attrValues results);
    };

  # Modules and what they import, a file at most once; each tells its file.
  load =
    arguments: modules:
    let
      step =
        file: seen: module:
        let
          isFile = isPath module || isString module;
          key = if isFile then toString module else "";
          content = if isFile then import module else module;
          body = if isFunction content then content arguments else content;
          itsFile = toString (body._file or (if isFile then module else file));
        in
        if isFile && elem key seen.keys then
          seen
        else
          foldl' (step itsFile) {
            keys = seen.keys ++ optional (key != "") key;
            bodies = seen.bodies ++ [ (body // { _file = itsFile; }) ];
          } (body.imports or [ ]);
    in
    (foldl' (step "<unknown-file>") {
      keys = [ ];
      bodies = [ ];
    } modules).bodies;

  syntax = [
    "_file"
    "freeformType"
    "imports"
    "key"
  ];

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      bodies = load (
        specialArgs
        // {
          inherit config lib;
          options = declared;
        }
      ) modules;
      declared = foldl' (declare prefix) { } (map (body: declaredIn body._file (body.options or { })) bodies);
      definitions = map (body: {
        file = body._file;
        value = if body ? options || body ? config then body.config or { } else removeAttrs body syntax;
      }) bodies;
      freeform = concatMap (body: optional (body ? freeformType) body.freeformType) bodies;
      tree = evaluateTree prefix declared definitions;
      config =
        if freeform != [ ] && tree.undeclared != [ ] then
          recursiveUpdate ((head freeform).merge prefix tree.undeclared) tree.config
        else if freeform != [ ] || tree.undeclared == [ ] then
          tree.config
        else
          throw "The option `${
            concatStringsSep "." (prefix ++ firstPath (head tree.undeclared))
          }' does not exist.";
    in
    {
      inherit config;
      inherit (tree) options;
      class = null;
      _module.args = { };
      type = {
        getSubModules = modules;
        functor.payload = { inherit modules specialArgs; };
      };
    };

  firstPath =
    set:
    let
      name = head (attrNames set);
    in
    [ name ]
    ++ (if isAttrs set.${name} && attrNames set.${name} != [ ] then firstPath set.${name} else [ ]);

  ## Types

  mkType =
    {
      description,
      # What kind of phrase the description is: within another one, it stands in parentheses
      # where it could be misread.
      descriptionClass ? "noun",
      check,
      merge ? mergeEqual,
      getSubOptions ? _: { },
      name ? "",
      nestedTypes ? { },
    }:
    {
      inherit
        name
        nestedTypes
        description
        descriptionClass
        check
        merge
        getSubOptions
        ;
    };

  phrase =
    plain: type:
    if elem (type.descriptionClass or null) plain then type.description else "(${type.description})";

  mergeEqual =
    path: values:
    if all (value: value == head values) values then
      head values
    else
      throw "The option `${concatStringsSep "." path}' has conflicting definition values.";

  mergeOne =
    path: values:
    if length values == 1 then
      head values
    else
      throw "The option `${concatStringsSep "." path}' is defined multiple times.";

  types = rec {
    bool = mkType {
      description = "boolean";
      check = isBool;
    };
    int = mkType {
      description = "signed integer";
      check = isInt;
    };
    float = mkType {
      description = "floating point number";
      check = isFloat;
    };
    str = mkType {
      description = "string";
      check = isString;
    };
    path = mkType {
      description = "absolute path";
      check = value: (isString value || isPath value) && hasPrefix "/" (toString value);
    };
    package = mkType {
      description = "package";
      check = value: value.type or "" == "derivation";
      merge = mergeOne;
    };
    raw = mkType {
      description = "raw value";
      check = _: true;
      merge = mergeOne;
    };
    ints = {
      positive = mkType {
        description = "positive integer, meaning >0";
        descriptionClass = "nonRestrictiveClause";
        check = value: isInt value && value > 0;
      };
      between =
        lowest: highest:
        mkType {
          description = "integer between ${toString lowest} and ${toString highest} (both inclusive)";
          check = value: isInt value && value >= lowest && value <= highest;
        };
    };
    addCheck = type: check: type // { check = value: type.check value && check value; };
    strMatching =
      pattern:
      mkType {
        description = "string matching the pattern ${pattern}";
        check = value: isString value && match pattern value != null;
      };
    enum =
      values:
      mkType {
        description = "one of ${concatStringsSep ", " (map builtins.toJSON values)}";
        descriptionClass = "conjunction";
        check = value: elem value values;
      };
    nullOr =
      type:
      mkType {
        name = "nullOr";
        nestedTypes.elemType = type;
        description = "null or ${
          phrase [
            "noun"
            "conjunction"
          ] type
        }";
        descriptionClass = "conjunction";
        check = value: value == null || type.check value;
        merge = path: values: if all isNull values then null else type.merge path values;
        inherit (type) getSubOptions;
      };
    oneOf =
      choices:
      mkType {
        description = concatStringsSep " or " (map (type: type.description) choices);
        descriptionClass = "conjunction";
        check = value: builtins.any (type: type.check value) choices;
        merge =
          path: values:
          let
            fitting = filter (type: all type.check values) choices;
          in
          if fitting == [ ] then mergeEqual path values else (head fitting).merge path values;
      };
    listOf =
      type:
      mkType {
        name = "listOf";
        nestedTypes.elemType = type;
        description = "list of ${
          phrase [
            "noun"
            "composite"
          ] type
        }";
        descriptionClass = "composite";
        check = isList;
        getSubOptions = path: type.getSubOptions (path ++ [ "*" ]);
        merge =
          path: values:
          map (value: mergeDefinitions (path ++ [ "*" ]) type (discharge value)) (concatLists values);
      };
    attrsOf =
      type:
      mkType {
        name = "attrsOf";
        nestedTypes.elemType = type;
        description = "attribute set of ${
          phrase [
            "noun"
            "composite"
          ] type
        }";
        descriptionClass = "composite";
        check = isAttrs;
        getSubOptions = path: type.getSubOptions (path ++ [ "<name>" ]);
        merge =
          path: values:
          let
            sets = concatMap pushDown values;
            definitions = genAttrs (names sets) (
              name: concatMap discharge (map (set: set.${name}) (filter (hasAttr name) sets))
            );
          in
          mapAttrs (name: mergeDefinitions (path ++ [ name ]) type) (
            filterAttrs (_: found: found != [ ]) definitions
          );
      };
    submodule =
      module:
      mkType {
        name = "submodule";
        description =
          if module ? freeformType then
            "open submodule of ${
              phrase [
                "noun"
                "composite"
              ] module.freeformType
            }"
          else
            "submodule";
        descriptionClass = null;
        check = value: isAttrs value || isFunction value || isPath value;
        merge =
          path: values:
          (evalModules {
            modules = [ module ] ++ map (value: if isAttrs value then { config = value; } else value) values;
            prefix = path;
          }).config;
        getSubOptions =
          path:
          (evalModules {
            modules = [ module ];
            prefix = path;
          }).options;
      };
  };

  lib = {
    inherit
      concatMap
      concatStringsSep
      evalModules
      filter
      filterAttrs
      genAttrs
      hasPrefix
      hasSuffix
      isOption
      last
      mkEnableOption
      mkIf
      mkMerge
      mkOption
      mkOverride
      optional
      optionalAttrs
      removePrefix
      removeSuffix
      types
      unique
      ;

    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    splitString = separator: text: filter isString (split (lib.escapeRegex separator) text);
    escapeRegex =
      builtins.replaceStrings
        [
          "\\"
          "^"
          "$"
          "."
          "|"
          "?"
          "*"
          "+"
          "("
          ")"
          "["
          "{"
        ]
        [
          "\\\\"
          "\\^"
          "\\$"
          "\\."
          "\\|"
          "\\?"
          "\\*"
          "\\+"
          "\\("
          "\\)"
          "\\["
          "\\{"
        ];
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    getExe = package: "${package}/bin/${package.meta.mainProgram}";

    # For package.nix.
    warn = message: builtins.trace "warning: ${message}";
    makeBinPath = packages: builtins.concatStringsSep ":" (map (package: "${package}/bin") packages);
    fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    importJSON = file: builtins.fromJSON (builtins.readFile file);
    fetchers.proxyImpureEnvVars = [ "https_proxy" ];
    licenses.mit.spdxId = "MIT";
    platforms.linux = [ "x86_64-linux" ];
    fileset = {
      # Only the names of the files that were asked for.
      toSource = { root, fileset }: map (removePrefix "${toString root}/") fileset;
      unions = map (
        file: if builtins.pathExists file then toString file else throw "${toString file} does not exist"
      );
    };
  };
in
lib

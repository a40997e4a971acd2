//! The git configuration of our checkouts. It replaces the configuration of the user, the system and the repository, so
//! what it does not name has git's default.

/// The git attributes that turn off every conversion of content. Attributes in the repository may ask for one (line
/// ends, `filter`, `ident`, encodings), but this file has precedence. `!` means unspecified: git fails if
/// `working-tree-encoding` is only unset.
pub(super) const ATTRIBUTES: &str = "* -text !eol -ident !filter !working-tree-encoding\n";

/// Configuration that replaces the user's and the system's.
pub(super) const CONFIGURATION: &str = "\
# Written for one run.
[safe]
\t# A bare repository on a volume may belong to anybody. Given by environment, this one is ignored.
\tdirectory = *
[core]
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tlogAllRefUpdates = false
\t# Names that Windows could not hold are names all the same.
\tprotectNTFS = false
\tprotectHFS = false
[fetch]
\t# What is fetched comes as a pack: loose objects of a fetch that was cut off could not be told from others.
\tunpackLimit = 1
[gc]
\t# No process in the background that works on after us.
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[http]
\t# git would send the token along to where it is redirected.
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 60
[gpg]
\tformat = ssh
";

//! The function library as the grammar calls it, read from the library's own reference.

use std::sync::LazyLock;

use rules_sql::reference;

/// Arguments that are given beyond the parameters of a function that takes any number of them.
const MORE: usize = 3;

/// A function under one of its names.
pub(crate) struct Callable {
    pub(crate) name: &'static str,
    /// Fewest arguments.
    pub(crate) least: usize,
    /// Most arguments that are given.
    pub(crate) most: usize,
    /// Whether `*` may stand for each argument.
    pub(crate) stars: Vec<bool>,
}

/// Every function, aliases included.
pub(crate) static FUNCTIONS: LazyLock<Vec<Callable>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for function in reference::functions().iter().flat_map(|group| &group.functions) {
        let parameters = &function.parameters;
        let least = parameters.iter().filter(|parameter| !parameter.optional && !parameter.repeated).count();
        let is_open = parameters.iter().any(|parameter| parameter.repeated);
        let most = parameters.len() + if is_open { MORE } else { 0 };
        for name in std::iter::once(function.name).chain(function.aliases.iter().copied()) {
            let stars = parameters.iter().map(|parameter| parameter.star).collect();
            all.push(Callable { name, least, most, stars });
        }
    }
    all
});

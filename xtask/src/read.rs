//! Reads files into the tree, by `syn`.

use crate::fault::Fault;
use crate::tree::{File, Kind, Mention, Name, Tree};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::HashSet;
use std::path::Path;
use syn::visit::{self, Visit};

/// Reads a file, and those of the modules that it declares. `folder` is where theirs are.
pub fn file(tree: &mut Tree, root: &Path, path: &str, module: usize, folder: &str, test: bool) {
    let text = match std::fs::read_to_string(root.join(path)) {
        Ok(text) => text,
        Err(why) => {
            tree.faults.push(Fault::new("read", path, 0, "", format!("cannot be read: {why}")));
            return;
        }
    };
    let parsed = syn::parse_file(&text);
    tree.modules[module].file = tree.files.len();
    tree.files.push(File { path: path.into(), test, text, module });
    match parsed {
        Ok(ast) => {
            let folder = folder.to_owned();
            let mut reader = Reader { tree, root, path, module, folder, inline: 0, test, depth: 0 };
            reader.visit_file(&ast);
        }
        Err(why) => {
            let line = why.span().start().line;
            tree.faults.push(Fault::new("read", path, line, "", format!("cannot be read: {why}")));
        }
    }
}

struct Reader<'a> {
    tree: &'a mut Tree,
    root: &'a Path,
    path: &'a str,
    module: usize,
    /// Where files of this module's modules are.
    folder: String,
    /// How many inline modules we are in.
    inline: usize,
    test: bool,
    /// How many blocks of code we are in: what they define is in no module's scope.
    depth: usize,
}

impl Reader<'_> {
    fn mention(&mut self, path: Vec<String>, line: usize, kind: Kind) {
        // What is for tests alone may know everything.
        if !self.test && path.first().is_some_and(|first| first != "Self") {
            self.tree.paths.push(Mention { module: self.module, path, line, kind });
        }
    }

    fn name(&mut self, name: &str, what: Name) {
        if self.depth == 0 || matches!(what, Name::Import { .. }) {
            let scope = &mut self.tree.modules[self.module].scope;
            scope.entry(name.into()).or_default().push(what);
        }
    }

    fn using(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree, public: bool) {
        let kind = if public { Kind::Show } else { Kind::Use };
        let path = |prefix: &[String], ident: &syn::Ident| match ident.to_string() {
            ident if ident == "self" && !prefix.is_empty() => prefix.to_vec(),
            ident => [prefix, &[ident]].concat(),
        };
        match tree {
            syn::UseTree::Path(inner) => {
                prefix.push(inner.ident.to_string());
                self.using(prefix, &inner.tree, public);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for inner in &group.items {
                    self.using(prefix, inner, public);
                }
            }
            syn::UseTree::Name(inner) => {
                let path = path(prefix, &inner.ident);
                if let Some(last) = path.last() {
                    self.name(last, Name::Import { path: path.clone(), public });
                }
                self.mention(path, inner.ident.span().start().line, kind);
            }
            syn::UseTree::Rename(inner) => {
                let path = path(prefix, &inner.ident);
                self.name(&inner.rename.to_string(), Name::Import { path: path.clone(), public });
                self.mention(path, inner.ident.span().start().line, kind);
            }
            syn::UseTree::Glob(inner) => {
                self.tree.modules[self.module].globs.push(prefix.clone());
                self.mention(prefix.clone(), inner.star_token.spans[0].start().line, Kind::Glob);
            }
        }
    }

    /// Paths in what a macro is given, or makes: every `a::b`.
    fn tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |i: usize| {
            let colon =
                |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':');
            colon(i) && colon(i + 1)
        };
        let dollar =
            |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == '$');
        let mut i = 0;
        while i < tokens.len() {
            match &tokens[i] {
                // A macro's own parameter says nothing of where it leads, nor does what follows `::`.
                TokenTree::Ident(first)
                    if (first == "crate" || i == 0 || !dollar(i - 1))
                        && (i < 2 || !colons(i - 2)) =>
                {
                    let line = first.span().start().line;
                    let mut path = [prefix, &[first.to_string()]].concat();
                    i += 1;
                    while colons(i) {
                        match tokens.get(i + 2) {
                            Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                            Some(TokenTree::Group(group))
                                if group.delimiter() == Delimiter::Brace =>
                            {
                                self.tokens(group.stream(), &path);
                                path.clear();
                            }
                            _ => break,
                        }
                        i += 3;
                    }
                    if !path.is_empty() {
                        self.mention(path, line, Kind::Code);
                    }
                }
                TokenTree::Group(group) => {
                    self.tokens(group.stream(), &[]);
                    i += 1;
                }
                _ => i += 1,
            }
        }
    }

    fn submodule(&mut self, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        let child = self.tree.module(&name, Some(self.module), self.tree.modules[self.module].file);
        self.name(&name, Name::Module(child));
        let test = self.test || for_tests(&item.attrs);
        let folder = format!("{}/{name}", self.folder);
        if let Some((_, items)) = &item.content {
            let outer =
                (self.module, std::mem::replace(&mut self.folder, folder), self.test, self.depth);
            (self.module, self.test, self.depth) = (child, test, 0);
            self.inline += 1;
            for item in items {
                self.visit_item(item);
            }
            self.inline -= 1;
            (self.module, self.folder, self.test, self.depth) = outer;
            return;
        }
        if let Some(named) = path_attribute(&item.attrs) {
            // From the file's folder, or from an inline module's.
            let own = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let base = if self.inline == 0 { own } else { &self.folder };
            let path = format!("{base}/{named}");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            file(self.tree, self.root, &path, child, &folder, test);
            return;
        }
        let beside = format!("{folder}.rs");
        let inside = format!("{folder}/mod.rs");
        let path = if self.root.join(&inside).exists() { inside } else { beside };
        file(self.tree, self.root, &path, child, &folder, test);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item;
        let (attrs, ident) = match item {
            Item::Const(i) => (&i.attrs, Some(&i.ident)),
            Item::Enum(i) => (&i.attrs, Some(&i.ident)),
            Item::Fn(i) => (&i.attrs, Some(&i.sig.ident)),
            Item::Macro(i) => (&i.attrs, i.ident.as_ref()),
            Item::Static(i) => (&i.attrs, Some(&i.ident)),
            Item::Struct(i) => (&i.attrs, Some(&i.ident)),
            Item::Trait(i) => (&i.attrs, Some(&i.ident)),
            Item::TraitAlias(i) => (&i.attrs, Some(&i.ident)),
            Item::Type(i) => (&i.attrs, Some(&i.ident)),
            Item::Union(i) => (&i.attrs, Some(&i.ident)),
            Item::ForeignMod(i) => (&i.attrs, None),
            Item::Impl(i) => (&i.attrs, None),
            Item::Use(i) => (&i.attrs, None),
            Item::Mod(i) => return self.submodule(i),
            _ => return visit::visit_item(self, item),
        };
        let outer = self.test;
        self.test |= for_tests(attrs);
        if let Some(ident) = ident
            && !self.test
        {
            self.name(&ident.to_string(), Name::Item);
        }
        if let Item::Macro(item) = item
            && self.depth == 0
        {
            let module = &mut self.tree.modules[self.module];
            module.includes |= item.mac.path.is_ident("include");
            words(item.mac.tokens.clone(), &mut module.words);
        }
        if let Item::ForeignMod(block) = item {
            for inner in &block.items {
                match inner {
                    syn::ForeignItem::Fn(f) => self.name(&f.sig.ident.to_string(), Name::Item),
                    syn::ForeignItem::Static(s) => self.name(&s.ident.to_string(), Name::Item),
                    _ => {}
                }
            }
        }
        visit::visit_item(self, item);
        self.test = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let outer = self.test;
        self.test |= for_tests(&item.attrs);
        visit::visit_impl_item_fn(self, item);
        self.test = outer;
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.depth += 1;
        visit::visit_block(self, block);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() && !self.test {
            let public = !matches!(item.vis, syn::Visibility::Inherited);
            self.using(&mut Vec::new(), &item.tree, public);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
            let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
            self.mention(segments, line, Kind::Code);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(item.tokens.clone(), &[]);
    }

    // `pub(in crate::loss)` names who may look in, and documentation whom it likes.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// Every word of some tokens.
fn words(tokens: TokenStream, found: &mut HashSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => _ = found.insert(ident.to_string()),
            TokenTree::Group(group) => words(group.stream(), found),
            _ => {}
        }
    }
}

/// Whether attributes say that something is there in tests alone.
fn for_tests(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        if attr.path().is_ident("test") {
            return true;
        }
        let syn::Meta::List(list) = &attr.meta else { return false };
        if !attr.path().is_ident("cfg") {
            return false;
        }
        let words: Vec<String> = list
            .tokens
            .to_string()
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .map(str::to_owned)
            .collect();
        let has = |word: &str| words.iter().any(|w| w == word);
        has("test") && !has("not") && !has("any")
    })
}

/// What `#[path = ".."]` says.
fn path_attribute(attrs: &[syn::Attribute]) -> Option<String> {
    attrs.iter().find_map(|attr| match &attr.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

//! The structs that are handed to kernels, as Rust has them: fields, C types, and where they lie.

use crate::tree::Tree;
use std::collections::BTreeMap;

/// The module whose `repr(C)` structs they are, with its own modules.
const MODULE: &str = "args";

/// What is handed to kernels.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Whatever a struct holds comes before it.
    pub structs: Vec<Struct>,
    /// Lengths of arrays that have a name, by the name.
    pub lengths: BTreeMap<String, usize>,
    /// The file of the module that they are in.
    pub source: String,
}

/// A struct.
#[derive(Debug, Clone)]
pub struct Struct {
    /// Its name, in Rust and in C.
    pub name: String,
    /// What is said of it.
    pub doc: Vec<String>,
    /// Its fields in their order.
    pub fields: Vec<Field>,
    /// Its size in bytes.
    pub size: usize,
    align: usize,
}

/// A field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name, in Rust and in C.
    pub name: String,
    /// What is said of it.
    pub doc: Vec<String>,
    /// Its type, or that of its elements, in C.
    pub c: String,
    /// Lengths of an array, the outermost first, as C says them.
    pub lengths: Vec<String>,
    /// Bytes before it.
    pub offset: usize,
}

/// A type: in C, with its size and alignment.
struct Type {
    c: String,
    lengths: Vec<String>,
    size: usize,
    align: usize,
}

/// Numbers, in Rust and in C.
const NUMBERS: [(&str, &str, usize); 5] = [
    ("f32", "float", 4),
    ("f64", "double", 8),
    ("i64", "wl_i64", 8),
    ("u32", "wl_u32", 4),
    ("u64", "wl_u64", 8),
];

/// Reads them; nothing where the project hands nothing to kernels.
///
/// # Errors
/// A field that a kernel cannot be handed, with file and line.
pub fn read(tree: &Tree) -> Result<Arguments, String> {
    let tops = (0..tree.modules.len()).filter(|&module| {
        tree.modules[module].name == MODULE
            && tree.files[tree.modules[module].file].module == module
    });
    let tops: Vec<usize> = tops.collect();
    let Some(&top) = tops.first() else { return Ok(Arguments::default()) };
    if let Some(other) = tops.get(1) {
        let (one, two) = (tree.path(top), tree.path(*other));
        return Err(format!("{one} and {two}: which are the arguments of kernels?"));
    }
    let mut reader = Reader { tree, files: Vec::new(), made: Arguments::default() };
    for module in (0..tree.modules.len()).filter(|&module| tree.inside(module, top)) {
        let file = &tree.files[tree.modules[module].file];
        if file.module == module && !file.test {
            let ast = syn::parse_file(&file.text).map_err(|e| format!("{}: {e}", file.path))?;
            reader.files.push((module, ast));
        }
    }
    reader.made.source = tree.files[tree.modules[top].file].path.clone();
    reader.all()?;
    Ok(reader.made)
}

struct Reader<'a> {
    tree: &'a Tree,
    files: Vec<(usize, syn::File)>,
    made: Arguments,
}

impl Reader<'_> {
    fn all(&mut self) -> Result<(), String> {
        let mut names = Vec::new();
        for (_, ast) in &self.files {
            for item in &ast.items {
                if let syn::Item::Struct(s) = item
                    && is_c(&s.attrs)
                    && matches!(s.fields, syn::Fields::Named(_))
                {
                    names.push(s.ident.to_string());
                }
            }
        }
        for name in names {
            self.structure(&name)?;
        }
        Ok(())
    }

    /// The module and the struct of a name.
    fn find(&self, name: &str) -> Option<(usize, syn::ItemStruct)> {
        self.files.iter().find_map(|(module, ast)| {
            ast.items.iter().find_map(|item| match item {
                syn::Item::Struct(s) if s.ident == name && is_c(&s.attrs) => {
                    Some((*module, s.clone()))
                }
                _ => None,
            })
        })
    }

    /// Reads a struct, and those that it holds, unless it was read.
    fn structure(&mut self, name: &str) -> Result<(), String> {
        if self.made.structs.iter().any(|made| made.name == name) {
            return Ok(());
        }
        let Some((module, item)) = self.find(name) else { return Ok(()) };
        let (mut fields, mut size, mut align) = (Vec::new(), 0, 1);
        for field in &item.fields {
            let Some(ident) = &field.ident else { continue };
            let found = self.kind(module, &field.ty)?;
            if size % found.align != 0 {
                let why = format!(
                    "{name} has padding before `{ident}`: order its fields, or add a `pad`"
                );
                return Err(self.at(module, ident.span(), &why));
            }
            fields.push(Field {
                name: ident.to_string(),
                doc: doc(&field.attrs),
                c: found.c,
                lengths: found.lengths,
                offset: size,
            });
            size += found.size;
            align = align.max(found.align);
        }
        if size % align != 0 {
            let why = format!("{name} has padding at its end: add a `pad`");
            return Err(self.at(module, item.ident.span(), &why));
        }
        let doc = doc(&item.attrs);
        self.made.structs.push(Struct { name: name.into(), doc, fields, size, align });
        Ok(())
    }

    /// What a type of a field is.
    fn kind(&mut self, module: usize, ty: &syn::Type) -> Result<Type, String> {
        if let syn::Type::Array(array) = ty {
            let element = self.kind(module, &array.elem)?;
            let (length, text) = self.length(module, &array.len)?;
            let lengths = [&[text], &element.lengths[..]].concat();
            return Ok(Type { lengths, size: length * element.size, ..element });
        }
        let span = syn::spanned::Spanned::span(ty);
        let name = match ty {
            syn::Type::Path(path) => path.path.get_ident().map(ToString::to_string),
            _ => None,
        };
        let Some(name) = name else {
            return Err(self.at(
                module,
                span,
                "a kernel is handed numbers, addresses and arrays of them",
            ));
        };
        if let Some((_, c, size)) = NUMBERS.iter().find(|(rust, ..)| *rust == name) {
            return Ok(Type { c: (*c).into(), lengths: Vec::new(), size: *size, align: *size });
        }
        if let Some(c) = self.address(&name) {
            return Ok(Type { c, lengths: Vec::new(), size: 8, align: 8 });
        }
        match self.find(&name) {
            Some((module, item)) if matches!(item.fields, syn::Fields::Unnamed(_)) => {
                let inner = item.fields.iter().map(|field| field.ty.clone()).collect::<Vec<_>>();
                match &inner[..] {
                    [only] => self.kind(module, only),
                    _ => Err(self.at(
                        module,
                        span,
                        "a kernel is handed structs whose fields have names",
                    )),
                }
            }
            Some(_) => {
                self.structure(&name)?;
                let made = self.made.structs.iter().find(|made| made.name == name);
                let (size, align) = made.map_or((0, 1), |made| (made.size, made.align));
                Ok(Type { c: name, lengths: Vec::new(), size, align })
            }
            None => {
                let why = format!(
                    "`{name}` says no type of C: `type {name} = u64;`, documented as `const float*` \
                     or whatever it points to"
                );
                Err(self.at(module, span, &why))
            }
        }
    }

    /// What an alias of an address points to: what its documentation has in backticks first.
    fn address(&self, name: &str) -> Option<String> {
        let items = self.files.iter().flat_map(|(_, ast)| &ast.items);
        let mut aliases = items.filter_map(|item| match item {
            syn::Item::Type(alias) if alias.ident == name => Some(alias),
            _ => None,
        });
        let alias = aliases.next()?;
        let number = matches!(&*alias.ty, syn::Type::Path(path) if path.path.is_ident("u64"));
        let text = doc(&alias.attrs).join(" ");
        let c = text.split('`').nth(1)?;
        (number && c.ends_with('*')).then(|| c.to_owned())
    }

    /// An array's length: how much it is, and how C says it.
    fn length(&mut self, module: usize, expr: &syn::Expr) -> Result<(usize, String), String> {
        match expr {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => {
                let value = number.base10_parse().map_err(|e| e.to_string())?;
                Ok((value, number.base10_digits().into()))
            }
            syn::Expr::Path(path) => {
                let segments: Vec<String> =
                    path.path.segments.iter().map(|s| s.ident.to_string()).collect();
                let name = segments.last().cloned().unwrap_or_default();
                let value = self.constant(module, &segments)?;
                let name = format!("WL_{name}");
                self.made.lengths.insert(name.clone(), value);
                Ok((value, name))
            }
            syn::Expr::Binary(sum) if matches!(sum.op, syn::BinOp::Add(_)) => {
                let (a, left) = self.length(module, &sum.left)?;
                let (b, right) = self.length(module, &sum.right)?;
                Ok((a + b, format!("{left} + {right}")))
            }
            _ => {
                let span = syn::spanned::Spanned::span(expr);
                Err(self.at(module, span, "a length is a number, a constant or a sum of these"))
            }
        }
    }

    /// The value of a constant, wherever it is defined.
    fn constant(&self, module: usize, path: &[String]) -> Result<usize, String> {
        let name = path.last().cloned().unwrap_or_default();
        for target in self.tree.resolve(module, path) {
            let owner = target.module();
            let file = &self.tree.files[self.tree.modules[owner].file];
            let Ok(ast) = syn::parse_file(&file.text) else { continue };
            for item in ast.items {
                let syn::Item::Const(item) = item else { continue };
                if item.ident != name {
                    continue;
                }
                match &*item.expr {
                    syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => {
                        return number.base10_parse().map_err(|e| e.to_string());
                    }
                    syn::Expr::Path(other) => {
                        let other: Vec<String> =
                            other.path.segments.iter().map(|s| s.ident.to_string()).collect();
                        return self.constant(owner, &other);
                    }
                    _ => {}
                }
            }
        }
        Err(format!("{}: no number is known for `{name}`", self.tree.path(module)))
    }

    fn at(&self, module: usize, span: proc_macro2::Span, why: &str) -> String {
        let file = &self.tree.files[self.tree.modules[module].file];
        format!("{}:{}: {why}", file.path, span.start().line)
    }
}

/// Whether a struct is `repr(C)`.
fn is_c(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        syn::Meta::List(list) => list.path.is_ident("repr") && list.tokens.to_string() == "C",
        _ => false,
    })
}

/// Lines of documentation.
fn doc(attrs: &[syn::Attribute]) -> Vec<String> {
    let lines = attrs.iter().filter_map(|attr| match &attr.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => {
                Some(text.value().trim().to_owned())
            }
            _ => None,
        },
        _ => None,
    });
    lines.filter(|line| !line.is_empty()).collect()
}

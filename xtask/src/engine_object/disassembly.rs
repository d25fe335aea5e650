//! Reading an object's instructions, relocations and sections with objdump.

use std::path::Path;

use anyhow::Result;

use crate::process::capture;
use crate::workspace::Workspace;

/// A stretch of code that begins at a symbol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// The symbol's name in the object.
    pub name: String,
    /// Its instructions in order.
    pub instructions: Vec<Instruction>,
    /// The symbols that its instructions refer to.
    pub references: Vec<String>,
}

/// One instruction, in AT&T syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// As objdump prints it, with one space between words.
    pub text: String,
}

/// Words that may stand before the operation.
const PREFIXES: [&str; 8] = ["bnd", "notrack", "lock", "rep", "repz", "repnz", "cs", "data16"];

impl Instruction {
    fn operation(&self) -> &str {
        let mut words = self.text.split(' ');
        words.find(|word| !PREFIXES.contains(word)).unwrap_or_default()
    }

    /// A call or jump to where a register or memory says.
    #[must_use]
    pub fn is_indirect_branch(&self) -> bool {
        let operation = self.operation();
        let branches = ["call", "jmp", "lcall", "ljmp"].iter().any(|it| operation.starts_with(it));
        branches && self.text.split(' ').any(|word| word.starts_with('*'))
    }

    /// A return that does not go through a thunk.
    #[must_use]
    pub fn is_return(&self) -> bool {
        matches!(self.operation(), "ret" | "retq" | "lret" | "lretq")
    }

    /// Whether it names a register that the kernel does not save: SSE, AVX, MMX or x87.
    #[must_use]
    pub fn uses_vector_register(&self) -> bool {
        let registers = self.text.split('%').skip(1);
        registers.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default()).any(|name| {
            let family = name.trim_end_matches(|c: char| c.is_ascii_digit());
            matches!(family, "xmm" | "ymm" | "zmm" | "mm" | "st")
        })
    }

    /// The mark of a function that may be called indirectly.
    #[must_use]
    pub fn is_branch_target_mark(&self) -> bool {
        self.operation() == "endbr64"
    }
}

/// A place that the linker fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The section that holds the place.
    pub section: String,
    /// For example `R_X86_64_PLT32`.
    pub kind: String,
    /// The symbol or section whose address it gets, without an addend.
    pub symbol: String,
    /// Offset of the place in its section.
    pub offset: u64,
}

/// A section's name and size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Disassembles all code of an object.
pub fn read_functions(workspace: &Workspace, object: &Path) -> Result<Vec<Function>> {
    Ok(parse_functions(&objdump(workspace, object, &["-dr", "--no-show-raw-insn"])?))
}

/// Lists the relocations of all sections.
pub fn read_relocations(workspace: &Workspace, object: &Path) -> Result<Vec<Relocation>> {
    Ok(parse_relocations(&objdump(workspace, object, &["-r"])?))
}

/// Lists the sections.
pub fn read_sections(workspace: &Workspace, object: &Path) -> Result<Vec<Section>> {
    Ok(parse_sections(&objdump(workspace, object, &["-hw"])?))
}

fn objdump(workspace: &Workspace, object: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = workspace.command("objdump");
    command.args(arguments).arg(object);
    capture(command)
}

fn parse_functions(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    for line in text.lines() {
        if let Some(name) = parse_function_header(line) {
            functions.push(Function { name: name.to_owned(), ..Function::default() });
        } else if let Some(function) = functions.last_mut() {
            if let Some((_, symbol)) = parse_inline_relocation(line) {
                function.references.push(symbol.to_owned());
            } else if let Some(text) = parse_instruction(line) {
                function.instructions.push(Instruction { text });
            }
        }
    }
    functions
}

/// `0000000000000010 <dmaplane_a>:`
fn parse_function_header(line: &str) -> Option<&str> {
    let (address, rest) = line.split_once(" <")?;
    let is_address = !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit());
    is_address.then(|| rest.strip_suffix(">:")).flatten()
}

/// `  94:<tab>call   99 <dmaplane_a+0x89>`
fn parse_instruction(line: &str) -> Option<String> {
    let (address, instruction) = line.trim_start().split_once(":\t")?;
    let is_address = address.chars().all(|c| c.is_ascii_hexdigit());
    is_address.then(|| instruction.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `<tabs>95: R_X86_64_PLT32<tab>memcpy-0x4`
fn parse_inline_relocation(line: &str) -> Option<(&str, &str)> {
    let (_, relocation) = line.trim_start().split_once(": ")?;
    let (kind, target) = relocation.split_once('\t')?;
    kind.starts_with("R_").then(|| (kind, without_addend(target)))
}

fn parse_relocations(text: &str) -> Vec<Relocation> {
    let mut section = String::new();
    let mut relocations = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("RELOCATION RECORDS FOR [") {
            section = rest.trim_end_matches("]:").to_owned();
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [offset, kind, target] = words[..] else {
            continue;
        };
        let Ok(offset) = u64::from_str_radix(offset, 16) else {
            continue;
        };
        relocations.push(Relocation {
            section: section.clone(),
            kind: kind.to_owned(),
            symbol: without_addend(target).to_owned(),
            offset,
        });
    }
    relocations
}

/// `memcpy-0x4` and `.rodata+0x8`: names hold neither sign.
fn without_addend(target: &str) -> &str {
    let end = target.find(['+', '-']).unwrap_or(target.len());
    target[..end].trim_end()
}

/// `  0 .text         00000231  0000000000000000  ...`
fn parse_sections(text: &str) -> Vec<Section> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u32>().ok()?;
        let name = words.next()?.to_owned();
        let bytes = u64::from_str_radix(words.next()?, 16).ok()?;
        Some(Section { name, bytes })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
\nout.o:     file format elf64-x86-64\n\n\nDisassembly of section .text:\n\n\
0000000000000000 <dmaplane_a-0x10>:\n   0:\tnop\n\n\
0000000000000010 <dmaplane_a>:\n  10:\tendbr64\n  14:\tpush   %rbp\n  94:\tcall   99 <dmaplane_a+0x89>\n\
\t\t\t95: R_X86_64_PLT32\tmemcpy-0x4\n  99:\tmov    $0x0,%rdx\n\t\t\t9c: R_X86_64_32S\t.rodata+0x8\n";

    fn instruction(text: &str) -> Instruction {
        Instruction { text: text.to_owned() }
    }

    #[test]
    fn functions_hold_their_instructions_and_references() {
        let functions = parse_functions(LISTING);
        assert_eq!(functions.len(), 2);
        assert_eq!(functions[1].name, "dmaplane_a");
        assert_eq!(functions[1].references, ["memcpy", ".rodata"]);
        assert_eq!(functions[1].instructions.len(), 4);
        assert_eq!(functions[1].instructions[1].text, "push %rbp");
        assert!(functions[1].instructions[0].is_branch_target_mark());
    }

    #[test]
    fn relocations_know_their_section_and_lose_their_addend() {
        let text = "\nRELOCATION RECORDS FOR [.text]:\nOFFSET           TYPE              VALUE\n\
             0000000000000095 R_X86_64_PLT32    _RNvC4ring3sum-0x0000000000000004\n\n\n\
             RELOCATION RECORDS FOR [.rodata]:\nOFFSET           TYPE              VALUE\n\
             0000000000000008 R_X86_64_64       .rodata\n";
        let relocations = parse_relocations(text);
        let expected = |section: &str, kind: &str, symbol: &str, offset| Relocation {
            section: section.to_owned(),
            kind: kind.to_owned(),
            symbol: symbol.to_owned(),
            offset,
        };
        assert_eq!(
            relocations,
            [
                expected(".text", "R_X86_64_PLT32", "_RNvC4ring3sum", 0x95),
                expected(".rodata", "R_X86_64_64", ".rodata", 8)
            ]
        );
    }

    #[test]
    fn sections_have_sizes() {
        let text = "Sections:\nIdx Name  Size      VMA  LMA  File off  Algn  Flags\n\
             \u{20} 0 .text 00000231  0000000000000000  0000000000000000  00000040  2**4  CODE\n";
        assert_eq!(parse_sections(text), [Section { name: ".text".to_owned(), bytes: 0x231 }]);
    }

    #[test]
    fn indirect_branches() {
        for text in ["call *%rax", "jmp *0x0(%rip) # 24 <f+0x14>", "notrack jmp *%rdi", "lcall *(%rax)"] {
            assert!(instruction(text).is_indirect_branch(), "{text}");
        }
        for text in ["call 99 <f+0x89>", "jmp 8f <f+0x7f>", "imul %rax,%rbx", "mov (%rax),%rbx"] {
            assert!(!instruction(text).is_indirect_branch(), "{text}");
        }
    }

    #[test]
    fn vector_registers() {
        for text in
            ["pxor %xmm0,%xmm0", "vmovdqu (%rdi),%ymm15", "vpxor %zmm31,%zmm1,%zmm2", "movq %mm7,(%rax)", "fxch %st(1)"]
        {
            assert!(instruction(text).uses_vector_register(), "{text}");
        }
        for text in ["mov %rsp,%rbp", "add 0x4(%rdi,%rcx,4),%ebx", "call 5 <xmm_thing>"] {
            assert!(!instruction(text).uses_vector_register(), "{text}");
        }
    }

    #[test]
    fn returns() {
        for text in ["ret", "repz ret", "ret $0x8"] {
            assert!(instruction(text).is_return(), "{text}");
        }
        assert!(!instruction("jmp a6 <f+0x96>").is_return());
    }
}

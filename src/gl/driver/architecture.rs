//! Identifies a GPU from what its driver says: vendor, architecture, and the facts that go with it.
//!
//! OpenGL can report only the subgroup size (GL_KHR_shader_subgroup) and, for one vendor, the number of compute units
//! (GL_NV_shader_thread_group). The rest comes from the renderer's name. Mesa's drivers put the chip's code name
//! there, others the product's name, and layers (zink, D3D12, virgl) quote the name of the device below them. Unknown
//! facts are 0 or `None`, never guessed.
//!
//! Programs and `sparkle info` use it. The planner does not: it knows a device by its measured rates.

use std::fmt;

/// The maker of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vendor {
    /// AMD.
    Amd,
    /// NVIDIA.
    Nvidia,
    /// Intel.
    Intel,
    /// Apple.
    Apple,
    /// None: it renders in software.
    Software,
    /// Another vendor.
    Other,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Vendor::Amd => "AMD",
            Vendor::Nvidia => "NVIDIA",
            Vendor::Intel => "Intel",
            Vendor::Apple => "Apple",
            Vendor::Software => "software",
            Vendor::Other => "unknown",
        })
    }
}

/// A GPU's architecture and the known facts about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Architecture {
    /// Its maker.
    pub vendor: Vendor,
    /// The architecture's name, such as `RDNA3` or `Hopper`; `Generic` if unknown.
    pub name: &'static str,
    /// The generation of an RDNA architecture, 0 of any other.
    pub rdna_generation: u32,
    /// Invocations that run in lockstep (a wave or warp). 0 if the compiler chooses for each shader, or if unknown.
    pub subgroup_size: u32,
    /// Whether the driver reported the subgroup size.
    pub subgroup_size_told: bool,
    /// Compute units (CUs, SMs), if the driver reports them.
    pub compute_units: Option<u32>,
    /// Whether one instruction can hold two operations on the same lanes (RDNA 3's and 4's VOPD).
    pub dual_issue: bool,
    /// Whether there are matrix units beside the vector units.
    pub matrix_units: bool,
    /// Line size in bytes of the cache that all compute units share; 0 if unknown.
    pub cache_line: u32,
    /// Bytes of shared memory of a compute unit; 0 if unknown. A single workgroup may be allowed less.
    pub local_memory: u32,
    /// 32-bit vector registers of a SIMD unit for each of its lanes; 0 if unknown.
    pub registers: u32,
}

/// Numbers that a driver reports; 0 if it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reported {
    /// `GL_SUBGROUP_SIZE_KHR`.
    pub subgroup_size: u32,
    /// `GL_SM_COUNT_NV`.
    pub compute_units: u32,
}

/// An architecture of which nothing is known.
const GENERIC: Architecture = Architecture {
    vendor: Vendor::Other,
    name: "Generic",
    rdna_generation: 0,
    subgroup_size: 0,
    subgroup_size_told: false,
    compute_units: None,
    dual_issue: false,
    matrix_units: false,
    cache_line: 0,
    local_memory: 0,
    registers: 0,
};

impl Architecture {
    /// Identifies the architecture of a device by its `GL_VENDOR` and `GL_RENDERER`.
    pub fn identify(vendor: &str, renderer: &str, reported: Reported) -> Self {
        let words = Words::of(renderer);
        let mut found = match vendor_of(vendor, renderer, &words) {
            Vendor::Amd => amd(&words),
            Vendor::Nvidia => nvidia(&words),
            Vendor::Intel => intel(&words),
            Vendor::Apple => apple(&words),
            Vendor::Software => software(&words),
            Vendor::Other => GENERIC,
        };
        if reported.subgroup_size > 0 {
            (found.subgroup_size, found.subgroup_size_told) = (reported.subgroup_size, true);
        }
        found.compute_units = Some(reported.compute_units).filter(|&count| count > 0);
        found
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.vendor, self.name)?;
        match (self.subgroup_size, self.subgroup_size_told) {
            (0, _) => write!(f, "; subgroups of unknown size")?,
            (size, true) => write!(f, "; subgroups of {size}")?,
            (size, false) => write!(f, "; subgroups of {size} by its name")?,
        }
        if let Some(count) = self.compute_units {
            write!(f, "; {count} compute units")?;
        }
        if self.dual_issue {
            f.write_str("; dual issue")?;
        }
        if self.matrix_units {
            f.write_str("; matrix units")?;
        }
        Ok(())
    }
}

/// The words of a name in lower case, split at everything but letters and digits.
struct Words(Vec<String>);

impl Words {
    fn of(name: &str) -> Self {
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        Words(words.map(str::to_ascii_lowercase).collect())
    }

    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|it| it == word)
    }

    fn has_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.has(word))
    }

    /// The number that begins the word after the word `prefix`, as in `rx 7900xt`.
    fn after(&self, prefix: &str) -> Option<u32> {
        self.0.windows(2).find(|pair| pair[0] == prefix).and_then(|pair| leading_number(&pair[1]))
    }

    /// The number in the first word that is `prefix` and a number of this radix, and nothing else.
    fn code(&self, prefix: &str, radix: u32) -> Option<u32> {
        let digits = |word: &str| u32::from_str_radix(word.strip_prefix(prefix)?, radix).ok();
        self.0.iter().find_map(|word| digits(word))
    }

    /// Whether a word is `prefix` followed by a digit.
    fn has_series(&self, prefix: &str) -> bool {
        let follows = |word: &String| word.strip_prefix(prefix)?.chars().next();
        self.0.iter().any(|word| follows(word).is_some_and(|c| c.is_ascii_digit()))
    }
}

/// The number that `word` begins with.
fn leading_number(word: &str) -> Option<u32> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word[..end].parse().ok()
}

/// Whether this is a software renderer's name.
pub fn is_software(renderer: &str) -> bool {
    let renderer = renderer.to_lowercase();
    ["llvmpipe", "softpipe", "swrast", "swiftshader", "software rasterizer"]
        .iter()
        .any(|name| renderer.contains(name))
}

/// The renderer's name decides first: a layer quotes the hardware there, while `GL_VENDOR` is the layer's own.
fn vendor_of(vendor: &str, renderer: &str, words: &Words) -> Vendor {
    let maker = Words::of(vendor);
    if is_software(renderer) {
        Vendor::Software
    } else if words.has_any(&["nvidia", "geforce", "quadro", "tesla", "nvk"]) || words.nouveau().is_some() {
        Vendor::Nvidia
    } else if words.has_any(&["amd", "radeon", "radeonsi", "radv", "ati"]) {
        Vendor::Amd
    } else if words.has("intel") {
        Vendor::Intel
    } else if words.has("apple") {
        Vendor::Apple
    } else if maker.has_any(&["nvidia", "nouveau"]) {
        Vendor::Nvidia
    } else if maker.has_any(&["amd", "ati"]) {
        Vendor::Amd
    } else if maker.has("intel") {
        Vendor::Intel
    } else if maker.has("apple") {
        Vendor::Apple
    } else {
        Vendor::Other
    }
}

/// A software renderer, whose name states the width of its vectors.
fn software(words: &Words) -> Architecture {
    let bits = words.0.windows(2).find(|pair| pair[1] == "bits").and_then(|pair| leading_number(&pair[0]));
    let known = [("llvmpipe", "llvmpipe"), ("softpipe", "softpipe"), ("swiftshader", "SwiftShader")];
    let name = known.iter().find(|(word, _)| words.has(word)).map_or("software", |&(_, name)| name);
    Architecture { vendor: Vendor::Software, name, subgroup_size: bits.unwrap_or(0) / 32, ..GENERIC }
}

/// Waves of 64 on SIMD units of 16 lanes, 256 registers per lane.
const GCN: Architecture = Architecture {
    vendor: Vendor::Amd,
    name: "GCN",
    subgroup_size: 64,
    cache_line: 64,
    local_memory: 64 << 10,
    registers: 256,
    ..GENERIC
};
const CDNA: Architecture =
    Architecture { name: "CDNA", cache_line: 128, registers: 512, matrix_units: true, ..GCN };
/// Waves of 32 on SIMD units of 32 lanes; two compute units share 128 KiB of local memory.
const RDNA1: Architecture = Architecture {
    vendor: Vendor::Amd,
    name: "RDNA1",
    rdna_generation: 1,
    subgroup_size: 32,
    cache_line: 128,
    local_memory: 64 << 10,
    registers: 1024,
    ..GENERIC
};
const RDNA2: Architecture = Architecture { name: "RDNA2", rdna_generation: 2, ..RDNA1 };
const RDNA3: Architecture = Architecture { name: "RDNA3", rdna_generation: 3, dual_issue: true, ..RDNA1 };
/// The large chips of the third generation have 1.5 times the registers.
const RDNA3_LARGE: Architecture = Architecture { registers: 1536, ..RDNA3 };
const RDNA4: Architecture = Architecture { name: "RDNA4", rdna_generation: 4, ..RDNA3_LARGE };

fn amd(words: &Words) -> Architecture {
    let unknown = Architecture { vendor: Vendor::Amd, ..GENERIC };
    amd_by_code(words).or_else(|| amd_by_product(words)).unwrap_or(unknown)
}

/// Identifies by the chip: its code name, or the number of its instruction set.
fn amd_by_code(words: &Words) -> Option<Architecture> {
    const CHIPS: [(Architecture, &[&str]); 7] = [
        (RDNA4, &["navi44", "navi48"]),
        (RDNA3_LARGE, &["navi31", "navi32"]),
        (RDNA3, &["navi33", "phoenix", "phoenix2", "strix", "strix1", "krackan"]),
        (
            RDNA2,
            &[
                "navi21",
                "navi22",
                "navi23",
                "navi24",
                "sienna",
                "navy",
                "dimgrey",
                "beige",
                "yellow",
                "vangogh",
                "rembrandt",
                "raphael",
                "mendocino",
            ],
        ),
        (RDNA1, &["navi10", "navi12", "navi14"]),
        (CDNA, &["arcturus", "aldebaran"]),
        (
            GCN,
            &[
                "tahiti",
                "pitcairn",
                "verde",
                "oland",
                "hainan",
                "bonaire",
                "hawaii",
                "kaveri",
                "kabini",
                "mullins",
                "tonga",
                "iceland",
                "carrizo",
                "fiji",
                "stoney",
                "polaris10",
                "polaris11",
                "polaris12",
                "vegam",
                "vega10",
                "vega12",
                "vega20",
                "raven",
                "raven2",
                "picasso",
                "renoir",
                "lucienne",
                "cezanne",
            ],
        ),
    ];
    let set = |version: u32| match version {
        0x1200.. => Some(RDNA4),
        // As the compiler's list has it: these chips have the larger register file.
        0x1100 | 0x1101 | 0x1151 => Some(RDNA3_LARGE),
        0x1100..=0x11ff => Some(RDNA3),
        0x1030..=0x10ff => Some(RDNA2),
        0x1000..=0x102f => Some(RDNA1),
        0x908 | 0x90a | 0x940..=0x9ff => Some(CDNA),
        0x600..=0x93f => Some(GCN),
        _ => None,
    };
    let by_name = || CHIPS.iter().find(|(_, names)| words.has_any(names)).map(|(chip, _)| chip.clone());
    words.code("gfx", 16).and_then(set).or_else(by_name)
}

/// Identifies by the product's name.
fn amd_by_product(words: &Words) -> Option<Architecture> {
    if words.has_any(&["vega", "vii", "fury", "r9", "r7"]) {
        return Some(GCN);
    }
    if words.has_series("mi") {
        return Some(if words.has_any(&["mi25", "mi50", "mi60", "mi8", "mi6"]) { GCN } else { CDNA });
    }
    let discrete = |number: u32| match number {
        9000..=9999 => Some(RDNA4),
        // The large chips: 7700 and above. Laptop parts with such names are not among them.
        7700..=7999 => Some(RDNA3_LARGE),
        7000..=7699 => Some(RDNA3),
        6000..=6999 => Some(RDNA2),
        5300..=5799 => Some(RDNA1),
        400..=599 => Some(GCN),
        _ => None,
    };
    let workstation = |word: &str| match leading_number(word.strip_prefix('w')?)? {
        7700..=7999 => Some(RDNA3_LARGE),
        7000..=7699 => Some(RDNA3),
        6000..=6999 => Some(RDNA2),
        5000..=5999 => Some(RDNA1),
        _ => None,
    };
    let integrated = |word: &str| match (leading_number(word.strip_suffix('m')?)?, word) {
        (740 | 760 | 780 | 840 | 860 | 880 | 890, _) => Some(RDNA3),
        (610 | 660 | 680, _) => Some(RDNA2),
        _ => None,
    };
    let numbered = words.after("rx").or_else(|| words.after("pro")).and_then(discrete);
    let named = || words.0.iter().find_map(|word| workstation(word).or_else(|| integrated(word)));
    let halo = || words.has_any(&["8040s", "8050s", "8060s"]).then_some(RDNA3_LARGE);
    numbered.or_else(named).or_else(halo)
}

/// Warps of 32; cache lines of 128 bytes since its first compute architecture.
const NVIDIA: Architecture =
    Architecture { vendor: Vendor::Nvidia, subgroup_size: 32, cache_line: 128, ..GENERIC };

fn nvidia(words: &Words) -> Architecture {
    let name = nvidia_name(words).unwrap_or(NVIDIA.name);
    let matrix_units = match name {
        // The smaller chips of Turing have none.
        "Turing" => {
            let small = words.has_any(&["tu116", "tu117", "nv167", "nv168"]);
            !small
                && (words.has_any(&["rtx", "t4", "t4g"])
                    || words.has_series("tu")
                    || words.nouveau().is_some())
        }
        "Volta" | "Ampere" | "Ada" | "Hopper" | "Blackwell" => true,
        _ => false,
    };
    Architecture { name, matrix_units, ..NVIDIA }
}

fn nvidia_name(words: &Words) -> Option<&'static str> {
    const NAMED: [(&str, &[&str]); 10] = [
        ("Blackwell", &["blackwell", "thor"]),
        ("Hopper", &["hopper"]),
        ("Ada", &["ada"]),
        ("Ampere", &["ampere", "orin"]),
        ("Turing", &["turing"]),
        ("Volta", &["volta", "xavier"]),
        ("Pascal", &["pascal", "xp"]),
        ("Maxwell", &["maxwell"]),
        ("Kepler", &["kepler"]),
        ("Fermi", &["fermi"]),
    ];
    /// Chips, then accelerators and workstation boards; longer prefixes first.
    const SERIES: [(&str, &str); 22] = [
        ("gb", "Blackwell"),
        ("gh", "Hopper"),
        ("ad", "Ada"),
        ("ga", "Ampere"),
        ("tu", "Turing"),
        ("gv", "Volta"),
        ("gp", "Pascal"),
        ("gm", "Maxwell"),
        ("gk", "Kepler"),
        ("gf", "Fermi"),
        ("b", "Blackwell"),
        ("h", "Hopper"),
        ("l", "Ada"),
        ("a", "Ampere"),
        ("t", "Turing"),
        ("v", "Volta"),
        ("p", "Pascal"),
        ("m", "Maxwell"),
        ("k", "Kepler"),
        ("mx1", "Pascal"),
        ("mx2", "Pascal"),
        ("mx4", "Turing"),
    ];
    let named = NAMED.iter().find(|(_, names)| words.has_any(names)).map(|&(name, _)| name);
    let series = || SERIES.iter().find(|(prefix, _)| words.has_series(prefix)).map(|&(_, name)| name);
    let number = || words.0.iter().filter_map(|word| geforce(word, words)).next();
    named.or_else(|| nouveau_name(words.nouveau()?)).or_else(series).or_else(number)
}

impl Words {
    /// The chip's number as Mesa's driver states it: `NV168`.
    fn nouveau(&self) -> Option<u32> {
        self.code("nv", 16).filter(|chip| (0x50..0x200).contains(chip))
    }
}

fn nouveau_name(chip: u32) -> Option<&'static str> {
    match chip {
        0xc0..=0xdf => Some("Fermi"),
        0xe0..=0x10f => Some("Kepler"),
        0x110..=0x12f => Some("Maxwell"),
        0x130..=0x13f => Some("Pascal"),
        0x140..=0x14f => Some("Volta"),
        0x160..=0x16f => Some("Turing"),
        0x170..=0x17f => Some("Ampere"),
        0x180..=0x18f => Some("Hopper"),
        0x190..=0x19f => Some("Ada"),
        0x1a0..=0x1bf => Some("Blackwell"),
        _ => None,
    }
}

/// Identifies by the product's number.
fn geforce(word: &str, words: &Words) -> Option<&'static str> {
    let titan_or_quadro = words.has("titan") || words.has("quadro");
    match leading_number(word).unwrap_or(0) {
        5050..=5099 => Some("Blackwell"),
        4050..=4099 => Some("Ada"),
        3050..=3099 => Some("Ampere"),
        1630..=1699 | 2050..=2099 => Some("Turing"),
        1010..=1089 => Some("Pascal"),
        745..=759 | 910..=989 => Some("Maxwell"),
        605..=744 | 760..=799 => Some("Kepler"),
        405..=599 => Some("Fermi"),
        _ if !titan_or_quadro => None,
        // Titans and Quadros are told apart by their suffix, a word of its own.
        _ if words.has("rtx") => Some("Turing"),
        _ if words.has("v") => Some("Volta"),
        _ if words.has("x") => Some("Maxwell"),
        _ => None,
    }
}

/// The compiler chooses subgroups of 8, 16 or 32 invocations.
const INTEL: Architecture =
    Architecture { vendor: Vendor::Intel, cache_line: 64, local_memory: 64 << 10, ..GENERIC };

fn intel(words: &Words) -> Architecture {
    const CHIPS: [(&str, &[&str]); 10] = [
        ("Xe3", &["ptl"]),
        ("Xe2", &["lnl", "bmg"]),
        ("Xe-HPG", &["dg2"]),
        ("Xe-LPG", &["mtl", "arl"]),
        ("Xe-LP", &["tgl", "rkl", "adl", "rpl", "dg1"]),
        ("Gen11", &["icl", "ehl", "jsl"]),
        ("Gen9", &["skl", "kbl", "cfl", "bxt", "glk", "apl", "cml", "whl", "aml"]),
        ("Gen8", &["bdw", "chv", "bsw"]),
        ("Gen7.5", &["hsw"]),
        ("Gen7", &["ivb", "byt"]),
    ];
    let chip = CHIPS.iter().find(|(_, names)| words.has_any(names)).map(|&(name, _)| name);
    let name = chip.or_else(|| arc(words)).unwrap_or(GENERIC.name);
    Architecture { name, matrix_units: matches!(name, "Xe-HPG" | "Xe2" | "Xe3"), ..INTEL }
}

/// Intel's discrete boards: A770, B580.
fn arc(words: &Words) -> Option<&'static str> {
    if !words.has("arc") {
        return None;
    }
    if words.has_series("b") { Some("Xe2") } else { words.has_series("a").then_some("Xe-HPG") }
}

fn apple(words: &Words) -> Architecture {
    // The chip's own number, if the driver states it, or the processor's.
    const CHIPS: [(&str, &[&str]); 3] = [("G15", &["m3"]), ("G14", &["m2"]), ("G13", &["m1"])];
    let by_number = |(name, _): &&(&'static str, &[&str])| {
        let prefix = name.to_ascii_lowercase();
        words.0.iter().any(|word| word.starts_with(&prefix))
    };
    let found = CHIPS.iter().find(by_number).or_else(|| CHIPS.iter().find(|(_, names)| words.has_any(names)));
    let name = found.map_or(GENERIC.name, |&(name, _)| name);
    Architecture { vendor: Vendor::Apple, name, subgroup_size: 32, ..GENERIC }
}

#[cfg(test)]
mod tests;

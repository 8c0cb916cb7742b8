use super::*;

fn identify(vendor: &str, renderer: &str) -> Architecture {
    Architecture::identify(vendor, renderer, Reported::default())
}

#[test]
fn renderers_and_their_architectures() {
    // Names as drivers give them.
    let names = [
        ("AMD", "AMD Radeon RX 7900 XTX (radeonsi, navi31, LLVM 17.0.6, DRM 3.54, 6.6.10)", "RDNA3"),
        ("AMD", "AMD Radeon RX 7900 XT", "RDNA3"),
        ("AMD", "AMD Radeon RX 7600 (radeonsi, navi33, LLVM 16.0.6, DRM 3.52, 6.4.0)", "RDNA3"),
        ("AMD", "AMD Radeon Graphics (radeonsi, gfx1103_r1, LLVM 15.0.7, DRM 3.52, 6.4.0)", "RDNA3"),
        ("AMD", "AMD Radeon 780M (radeonsi, phoenix, LLVM 17.0.6, DRM 3.57, 6.8.0)", "RDNA3"),
        ("AMD", "AMD Radeon 890M Graphics (radeonsi, gfx1150, LLVM 18.1.8, DRM 3.59, 6.11)", "RDNA3"),
        ("AMD", "AMD Radeon PRO W7900", "RDNA3"),
        ("AMD", "AMD Radeon RX 9070 XT (radeonsi, gfx1201, LLVM 19.1.7, DRM 3.61, 6.13)", "RDNA4"),
        ("AMD", "AMD Radeon RX 6800 XT (radeonsi, navi21, LLVM 15.0.7, DRM 3.49, 6.1.0)", "RDNA2"),
        ("AMD", "AMD SIENNA_CICHLID (DRM 3.40.0, 5.10.0, LLVM 11.0.1)", "RDNA2"),
        ("AMD", "AMD Radeon Graphics (radeonsi, raphael_mendocino, LLVM 15.0.7, DRM 3.49)", "RDNA2"),
        ("Valve", "AMD Custom GPU 0405 (radeonsi, vangogh, LLVM 15.0.7, DRM 3.45)", "RDNA2"),
        ("AMD", "AMD Radeon RX 5700 XT (NAVI10, DRM 3.35.0, 5.4.0, LLVM 9.0.0)", "RDNA1"),
        ("ATI Technologies Inc.", "AMD Radeon Pro 5500M OpenGL Engine", "RDNA1"),
        ("X.Org", "AMD Radeon (TM) RX 480 Graphics (POLARIS10, DRM 3.27.0, LLVM 7.0.0)", "GCN"),
        ("ATI Technologies Inc.", "Radeon RX 580 Series", "GCN"),
        ("AMD", "AMD Radeon VII (radeonsi, vega20, LLVM 15.0.6, DRM 3.49)", "GCN"),
        ("AMD", "AMD Radeon Vega 8 Graphics (radeonsi, raven, LLVM 15.0.6, DRM 3.49)", "GCN"),
        ("AMD", "AMD Instinct MI250X (radeonsi, gfx90a, LLVM 15.0.6)", "CDNA"),
        ("AMD", "AMD Instinct MI300X", "CDNA"),
        ("AMD", "AMD Radeon of next year", "Generic"),
        ("Mesa", "zink Vulkan 1.3(AMD Radeon RX 7800 XT (RADV NAVI32))", "RDNA3"),
        ("NVIDIA Corporation", "NVIDIA H200/PCIe/SSE2", "Hopper"),
        ("NVIDIA Corporation", "NVIDIA H100 80GB HBM3/PCIe/SSE2", "Hopper"),
        ("NVIDIA Corporation", "NVIDIA GH200 480GB/PCIe", "Hopper"),
        ("NVIDIA Corporation", "NVIDIA B200/PCIe/SSE2", "Blackwell"),
        ("NVIDIA Corporation", "NVIDIA GeForce RTX 5090/PCIe/SSE2", "Blackwell"),
        ("NVIDIA Corporation", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition/PCIe/SSE2", "Blackwell"),
        ("NVIDIA Corporation", "NVIDIA GeForce RTX 4090/PCIe/SSE2", "Ada"),
        ("NVIDIA Corporation", "NVIDIA RTX 6000 Ada Generation/PCIe/SSE2", "Ada"),
        ("NVIDIA Corporation", "NVIDIA L40S/PCIe/SSE2", "Ada"),
        ("NVIDIA Corporation", "NVIDIA A100-SXM4-80GB/PCIe/SSE2", "Ampere"),
        ("NVIDIA Corporation", "NVIDIA RTX A6000/PCIe/SSE2", "Ampere"),
        ("NVIDIA Corporation", "NVIDIA GeForce RTX 3060 Laptop GPU/PCIe/SSE2", "Ampere"),
        ("Mesa", "zink Vulkan 1.3(NVIDIA GeForce RTX 3060 (NVK GA106))", "Ampere"),
        ("Microsoft Corporation", "D3D12 (NVIDIA GeForce RTX 2080 Ti)", "Turing"),
        ("NVIDIA Corporation", "Tesla T4/PCIe/SSE2", "Turing"),
        ("NVIDIA Corporation", "Quadro RTX 5000/PCIe/SSE2", "Turing"),
        ("NVIDIA Corporation", "GeForce GTX 1660 SUPER/PCIe/SSE2", "Turing"),
        ("NVIDIA Corporation", "TITAN RTX/PCIe/SSE2", "Turing"),
        ("NVIDIA Corporation", "TITAN V/PCIe/SSE2", "Volta"),
        ("NVIDIA Corporation", "Tesla V100-SXM2-32GB/PCIe/SSE2", "Volta"),
        ("NVIDIA Corporation", "GeForce GTX 1080 Ti/PCIe/SSE2", "Pascal"),
        ("NVIDIA Corporation", "Quadro P2000/PCIe/SSE2", "Pascal"),
        ("NVIDIA Corporation", "GeForce MX150/PCIe/SSE2", "Pascal"),
        ("NVIDIA Corporation", "TITAN Xp/PCIe/SSE2", "Pascal"),
        ("NVIDIA Corporation", "GeForce GTX TITAN X/PCIe/SSE2", "Maxwell"),
        ("NVIDIA Corporation", "GeForce GTX 970/PCIe/SSE2", "Maxwell"),
        ("NVIDIA Corporation", "GeForce GTX 750 Ti/PCIe/SSE2", "Maxwell"),
        ("NVIDIA Corporation", "Tesla K80/PCIe/SSE2", "Kepler"),
        ("NVIDIA Corporation", "GeForce GTX 680/PCIe/SSE2", "Kepler"),
        ("NVIDIA Corporation", "GeForce GTX 480/PCIe/SSE2", "Fermi"),
        ("nouveau", "NV168", "Turing"),
        ("nouveau", "NVE7", "Kepler"),
        ("NVIDIA Corporation", "NVIDIA of next year/PCIe/SSE2", "Generic"),
        ("Intel", "Mesa Intel(R) Arc(tm) A770 Graphics (DG2)", "Xe-HPG"),
        ("Intel", "Intel(R) Arc(TM) A770 Graphics", "Xe-HPG"),
        ("Intel", "Mesa Intel(R) Arc(tm) B580 Graphics (BMG G21)", "Xe2"),
        ("Intel", "Mesa Intel(R) Arc(tm) Graphics (MTL)", "Xe-LPG"),
        ("Intel", "Mesa Intel(R) Xe Graphics (TGL GT2)", "Xe-LP"),
        ("Intel", "Mesa Intel(R) UHD Graphics 770 (ADL-S GT1)", "Xe-LP"),
        ("Intel", "Mesa Intel(R) Iris(R) Plus Graphics (ICL GT2)", "Gen11"),
        ("Intel", "Mesa Intel(R) UHD Graphics 630 (CFL GT2)", "Gen9"),
        (
            "Intel Open Source Technology Center",
            "Mesa DRI Intel(R) HD Graphics 5500 (Broadwell GT2)",
            "Generic",
        ),
        ("Intel", "Mesa Intel(R) HD Graphics 5500 (BDW GT2)", "Gen8"),
        ("Mesa", "Apple M1 Max (G13C C0)", "G13"),
        ("Mesa", "Apple M2 (G14G B0)", "G14"),
        ("Apple", "Apple M1", "G13"),
        ("Mesa/X.org", "llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe"),
        ("Google Inc.", "Google SwiftShader", "SwiftShader"),
        ("freedreno", "FD660", "Generic"),
        ("", "", "Generic"),
    ];
    for (vendor, renderer, expected) in names {
        let found = identify(vendor, renderer);
        assert_eq!(found.name, expected, "{renderer}");
        let number: u32 = expected.strip_prefix("RDNA").map_or(0, |digits| digits.parse().unwrap());
        assert_eq!(found.rdna_generation, number, "{renderer}");
    }
    assert!(names.len() > 60);
}

#[test]
fn facts_go_with_the_architecture() {
    let navi31 = identify("AMD", "AMD Radeon RX 7900 XTX (radeonsi, navi31, LLVM 17.0.6)");
    assert_eq!((navi31.vendor, navi31.subgroup_size, navi31.subgroup_size_told), (Vendor::Amd, 32, false));
    assert_eq!((navi31.registers, navi31.local_memory, navi31.dual_issue), (1536, 65536, true));
    let navi33 = identify("AMD", "AMD Radeon RX 7600 (radeonsi, navi33, LLVM 16.0.6)");
    assert_eq!((navi33.registers, navi33.dual_issue), (1024, true));
    let navi21 = identify("AMD", "AMD Radeon RX 6800 (radeonsi, navi21, LLVM 15.0.7)");
    assert_eq!((navi21.registers, navi21.dual_issue, navi21.cache_line), (1024, false, 128));
    let vega = identify("AMD", "AMD Radeon Vega 8 Graphics (radeonsi, raven, LLVM 15.0.6)");
    assert_eq!((vega.subgroup_size, vega.registers, vega.cache_line), (64, 256, 64));
    let matrix = |renderer| identify("NVIDIA Corporation", renderer).matrix_units;
    assert!(
        ["NVIDIA H200/PCIe/SSE2", "Tesla T4/PCIe/SSE2", "Quadro RTX 5000/PCIe/SSE2"].into_iter().all(matrix)
    );
    assert!(!["GeForce GTX 1660/PCIe/SSE2", "NV168", "GeForce GTX 1080/PCIe/SSE2"].into_iter().any(matrix));
    assert_eq!(identify("", "llvmpipe (LLVM 15.0.6, 256 bits)").subgroup_size, 8);
    assert_eq!(identify("", "llvmpipe (LLVM 15.0.6, 512 bits)").subgroup_size, 16);
    assert_eq!(identify("Intel", "Mesa Intel(R) Xe Graphics (TGL GT2)").subgroup_size, 0);
}

#[test]
fn what_the_driver_says_goes_first() {
    let reported = Reported { subgroup_size: 64, compute_units: 96 };
    let found = Architecture::identify("AMD", "AMD Radeon RX 7900 XTX (radeonsi, navi31)", reported);
    assert_eq!((found.subgroup_size, found.subgroup_size_told), (64, true));
    assert_eq!(found.compute_units, Some(96));
    assert_eq!(found.to_string(), "AMD RDNA3; subgroups of 64; 96 compute units; dual issue");
    let untold = identify("NVIDIA Corporation", "NVIDIA H200/PCIe/SSE2");
    assert_eq!(untold.compute_units, None);
    assert_eq!(untold.to_string(), "NVIDIA Hopper; subgroups of 32 by its name; matrix units");
    assert_eq!(identify("", "FD660").to_string(), "unknown Generic; subgroups of unknown size");
}

#[test]
fn no_name_makes_it_panic() {
    let mut random = crate::problem::exact::Random::new(3);
    let pieces = [
        "rx",
        "gfx",
        "nv",
        "W",
        "7",
        "99999999999",
        "m",
        "Ä",
        " ",
        "(",
        "radeon",
        "nvidia",
        "intel",
        "apple",
        "bits",
        "arc",
    ];
    for _ in 0..2000 {
        let name: String = (0..random.between(0, 8)).map(|_| random.pick(&pieces)).collect();
        let found = identify("", &name);
        assert!(!found.name.is_empty(), "{name}");
    }
}

#[test]
fn software_is_known_by_its_name() {
    assert!(is_software("llvmpipe (LLVM 15.0.6, 256 bits)"));
    assert!(is_software("Google SwiftShader"));
    assert!(!is_software("NVIDIA H200/PCIe/SSE2"));
    assert!(!is_software("AMD Radeon RX 7900 XTX (radeonsi, navi31, LLVM 17.0.6)"));
}

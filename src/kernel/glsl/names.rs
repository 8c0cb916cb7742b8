//! Names that GLSL reserves, and new names for them.

use std::collections::HashSet;

use crate::allocate;
use crate::error::Result;

/// Keywords of GLSL 4.30 and GLSL ES 3.10, words that these reserve, and built-in functions. Names with `gl_` and
/// `__` are reserved as well.
const RESERVED: &str = "
    attribute const uniform varying buffer shared coherent volatile restrict readonly writeonly atomic_uint layout centroid flat
    smooth noperspective patch sample break continue do for while switch case default if else subroutine in out inout float
    double int void bool true false invariant precise discard return mat2 mat3 mat4 dmat2 dmat3 dmat4 mat2x2 mat2x3 mat2x4
    dmat2x2 dmat2x3 dmat2x4 mat3x2 mat3x3 mat3x4 dmat3x2 dmat3x3 dmat3x4 mat4x2 mat4x3 mat4x4 dmat4x2 dmat4x3 dmat4x4 vec2
    vec3 vec4 ivec2 ivec3 ivec4 bvec2 bvec3 bvec4 dvec2 dvec3 dvec4 uint uvec2 uvec3 uvec4 lowp mediump highp precision
    sampler1d sampler2d sampler3d samplercube sampler1dshadow sampler2dshadow samplercubeshadow sampler1darray sampler2darray
    isampler2d usampler2d image1d image2d image3d iimage2d uimage2d imagebuffer samplerbuffer struct common partition active
    asm class union enum typedef template this resource goto inline noinline public static extern external interface long
    short half fixed unsigned superp input output hvec2 hvec3 hvec4 fvec2 fvec3 fvec4 sampler3drect filter sizeof cast
    namespace using row_major packed main params first count last
    radians degrees sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh pow exp log exp2 log2 sqrt inversesqrt abs sign
    floor trunc round roundeven ceil fract mod modf min max clamp mix step smoothstep isnan isinf floatbitstoint
    floatbitstouint intbitstofloat uintbitstofloat fma frexp ldexp packunorm2x16 packsnorm2x16 packunorm4x8 packsnorm4x8
    unpackunorm2x16 unpacksnorm2x16 unpackunorm4x8 unpacksnorm4x8 packhalf2x16 unpackhalf2x16 packdouble2x32 unpackdouble2x32
    length distance dot cross normalize faceforward reflect refract matrixcompmult outerproduct transpose determinant inverse
    lessthan lessthanequal greaterthan greaterthanequal equal notequal any all not uaddcarry usubborrow umulextended
    imulextended bitfieldextract bitfieldinsert bitfieldreverse bitcount findlsb findmsb texture textureproj texturelod
    textureoffset texelfetch texturegrad texturegather texturesize texturequerylod atomiccounter atomicadd atomicmin atomicmax
    atomicand atomicor atomicxor atomicexchange atomiccompswap imagesize imageload imagestore imageatomicadd dfdx dfdy fwidth
    noise1 noise2 noise3 noise4 barrier memorybarrier memorybarrieratomiccounter memorybarrierbuffer memorybarriershared
    memorybarrierimage groupmemorybarrier interpolateatcentroid ftransform emitvertex endprimitive texture1d texture2d
    texture3d shadow1d shadow2d unsignedint defined";

/// The names of a text.
#[derive(Debug)]
pub(super) struct Names {
    /// Begins every name.
    prefix: &'static str,
    reserved: HashSet<&'static str>,
    /// Names at file level.
    global: HashSet<String>,
    /// Names of the current function.
    local: HashSet<String>,
}

impl Names {
    pub fn new(prefix: &'static str) -> Self {
        Names {
            prefix,
            reserved: RESERVED.split_whitespace().collect(),
            global: HashSet::new(),
            local: HashSet::new(),
        }
    }

    /// A form of the name that GLSL accepts. It may be taken.
    fn mangled(&self, name: &str) -> String {
        let lower = name.to_ascii_lowercase();
        let mut mangled = name.to_owned();
        while mangled.contains("__") {
            mangled = mangled.replace("__", "_0_");
        }
        if mangled.starts_with('_') {
            mangled.insert(0, 'v');
        }
        if !self.prefix.is_empty() {
            return format!("{}{}", self.prefix, mangled.trim_start_matches('_'));
        }
        if self.reserved.contains(lower.as_str()) || lower.starts_with("gl_") || lower.starts_with("sparkle_")
        {
            mangled = format!("v_{mangled}");
        }
        mangled
    }

    fn unique(&self, name: &str) -> String {
        let mangled = self.mangled(name);
        let mut candidate = mangled.clone();
        let mut number = 2;
        while self.global.contains(&candidate) || self.local.contains(&candidate) {
            candidate = format!("{}_v{number}", mangled.trim_end_matches('_'));
            number += 1;
        }
        candidate
    }

    fn reserve(set: &mut HashSet<String>) -> Result<()> {
        let wanted = set.len() + 1;
        set.try_reserve(1).map_err(|_| allocate::out_of_memory(&format!("{wanted} names of a kernel")))
    }

    /// A name at file level.
    pub fn global(&mut self, name: &str) -> Result<String> {
        let unique = self.unique(name);
        Self::reserve(&mut self.global)?;
        self.global.insert(unique.clone());
        Ok(unique)
    }

    /// A name in the current function.
    pub fn local(&mut self, name: &str) -> Result<String> {
        let unique = self.unique(name);
        Self::reserve(&mut self.local)?;
        self.local.insert(unique.clone());
        Ok(unique)
    }

    /// Begins another function.
    pub fn forget_locals(&mut self) {
        self.local.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_changed_and_names_stay_apart() {
        let mut names = Names::new("");
        assert_eq!(names.global("alpha").unwrap(), "alpha");
        assert_eq!(names.global("input").unwrap(), "v_input");
        assert_eq!(names.global("a__b").unwrap(), "a_0_b");
        assert_eq!(names.global("gl_x").unwrap(), "v_gl_x");
        assert_eq!(names.global("_x").unwrap(), "v_x");
        assert_eq!(names.global("K").unwrap(), "K");
        assert_eq!(names.global("k").unwrap(), "k");
        assert_eq!(names.local("alpha").unwrap(), "alpha_v2");
        assert_eq!(names.local("x_").unwrap(), "x_");
        names.forget_locals();
        assert_eq!(names.local("x_").unwrap(), "x_");
        assert_eq!(names.local("sparkle_index").unwrap(), "v_sparkle_index");
    }
}
